// The user's inbox and rooms, listened to without the application naming them.
//
// Over a WebSocket the edge starts them with `connect` and tells of each by
// `subscribed`; one that is new here is then asked for again, from the cursor
// that is stored for it. Over the fallbacks, or when the edge could not say,
// the rooms are asked for by a request.

import { Backoff } from './backoff.js';
import { RejoinError } from './errors.js';
import type { Connect, Subscribed } from './protocol.js';
import type { ImpliedOptions, SubscribeOptions } from './subscription-options.js';
import { Timer } from './timer.js';

/** First and longest wait before the rooms are asked for again. */
const RETRY_MS = [1_000, 30_000] as const;
/** Rooms of one answer: the most that an edge gives. */
const PAGE = 1_000;

export interface ImpliedChannels {
  inbox: ImpliedOptions | undefined;
  rooms: ImpliedOptions | undefined;
}

export interface MembershipsHost {
  /** Whether there is a subscription to this channel. */
  knows(channel: string): boolean;
  subscribe(channel: string, options: SubscribeOptions): void;
  /** Ends what the edge has started. */
  leave(channel: string): void;
  /** Asks an edge for JSON. */
  get(path: string): Promise<{ rooms?: string[]; more?: boolean }>;
  report(error: RejoinError): void;
  random: () => number;
}

export class Memberships {
  private readonly timer = new Timer();
  private readonly backoff: Backoff;
  private session = 0;

  constructor(
    private readonly implied: ImpliedChannels,
    private readonly host: MembershipsHost,
  ) {
    this.backoff = new Backoff(...RETRY_MS, host.random);
  }

  /** What to ask for with `connect`. */
  hello(user: string): Pick<Connect, 'inbox' | 'rooms'> {
    const { inbox, rooms } = this.implied;
    return { ...(inbox && !this.host.knows(inboxOf(user)) && { inbox: true }), ...(rooms && { rooms: true }) };
  }

  /** Connected. Where the edge does not start them itself, asks for them. */
  opened(user: string, byItself: boolean): void {
    if (byItself) return;
    this.add(inboxOf(user), 'tail');
    if (this.implied.rooms) this.find(user);
  }

  closed(): void {
    this.session++;
    this.timer.stop();
  }

  /** The edge has started a subscription that nobody here asked for. */
  found({ channel = '', cursor = 'tail' }: Subscribed): void {
    this.host.leave(channel);
    this.add(channel, cursor);
  }

  /** The edge could not say which rooms there are; `false`: that was not it. */
  refused(user: string, error: RejoinError): boolean {
    if (!this.implied.rooms || !error.retryable) return false;
    this.later(user, error);
    return true;
  }

  private add(channel: string, from: string): void {
    const options = this.implied[channel.startsWith('user:') ? 'inbox' : 'rooms'];
    if (options && !this.host.knows(channel)) this.host.subscribe(channel, { from, ...options });
  }

  private find(user: string): void {
    const { session } = this;
    void (async () => {
      let after = '';
      for (let more = true; more; ) {
        const page = await this.host.get(`/v1/users/${encodeURIComponent(user)}/rooms?limit=${PAGE}${after}`);
        if (session !== this.session) return;
        const { rooms = [] } = page;
        for (const room of rooms) this.add(room, 'tail');
        more = page.more === true && rooms.length > 0;
        after = `&after=${encodeURIComponent(rooms.at(-1) ?? '')}`;
      }
      this.backoff.reset();
    })().catch((cause: unknown) => {
      if (session !== this.session) return;
      const error = RejoinError.of(cause, 'disconnected');
      if (error.retryable || error.code === 'disconnected') this.later(user, error);
      else this.host.report(error);
    });
  }

  private later(user: string, error: RejoinError): void {
    this.timer.start(this.backoff.next(error.retryAfterMs), () => this.find(user));
  }
}

function inboxOf(user: string): string {
  return `user:${user}`;
}
