// One channel: what has arrived, what has been handled, and where to go on.
//
// Frames become items of a queue, and one loop hands them to the application
// in order. Two positions follow from it: `received` is where the next
// subscribe starts, `handled` is what is stored and survives a reload.

import { Backoff } from './backoff.js';
import { Consumer, type Deliver } from './consumer.js';
import { isLater, parseCursor } from './cursor.js';
import { RejoinError } from './errors.js';
import { Emitter } from './events.js';
import { toMessage, toSignal, type Message } from './message.js';
import type { Messages, Receipt, ServerFrame, Subscribe, Subscribed } from './protocol.js';
import type { Reset, SubscribeOptions, SubscriptionEvents, SubscriptionState } from './subscription-options.js';
import { Timer } from './timer.js';

/** More unhandled messages than this, and the channel is left and caught up
 * with from its log later: a slow handler costs time, not memory. */
const QUEUE_MAX = 1_000;
/** First and longest wait before a message is handed to a failed handler again. */
const HANDLER_RETRY_MS = [1_000, 30_000] as const;

/** What a subscription needs of the client. @internal */
export interface SubscriptionHost {
  /** Resolves with the stored cursor once this tab may handle the channel. */
  begin(): Promise<string | undefined>;
  save(cursor: string): void;
  /** Asks the edge, if there is a connection. */
  ask(subscribe: Subscribe): void;
  leave(): void;
  ack(ack: { delivered?: string; read?: string }): void;
  /** Its state changed. */
  changed(): void;
  report(error: RejoinError): void;
  reset(reset: Reset): void;
  user(): string | undefined;
  ended(): void;
  random: () => number;
}

type Item<T> = { cursor: string; message?: Message<T>; live?: true; reset?: Reset };

export class Subscription<T = unknown> extends Emitter<SubscriptionEvents> {
  state: SubscriptionState = 'waiting';
  /** Messages that this user has not read on any device, as far as known. */
  unread = 0;
  /** Arrived a second time and dropped; skipped by the edge and repaired. */
  readonly counts = { duplicates: 0, gaps: 0 };
  /** @internal resolves when the start position is known, unless it has to
   * wait for another tab */
  readonly soon: Promise<void>;

  private received: string | undefined;
  private handled: string | undefined;
  private readonly queue: Item<T>[] = [];
  private deliver: Deliver<T> | undefined;
  private consumer: Consumer<T> | undefined;
  private begun = false;
  private running = false;
  private paused = false;
  /** Asked for on this connection; answered; replayed. */
  private asked = false;
  private onWire = false;
  private wireLive = false;
  private shard = 0;
  private readAt: string | undefined;
  private failure: RejoinError | undefined;
  private gapAt: string | undefined;
  private readonly backoff: Backoff;
  private readonly timer = new Timer();
  private wakeUp: (() => void) | undefined;

  /** @internal */
  constructor(
    readonly channel: string,
    private readonly options: SubscribeOptions<T>,
    private readonly host: SubscriptionHost,
  ) {
    super();
    this.backoff = new Backoff(...HANDLER_RETRY_MS, host.random);
    if (options.onMessage) this.deliver = async (message) => void (await options.onMessage!(message));
    if (options.onSignal) this.on('signal', options.onSignal);
    if (options.onUnread) this.on('unread', options.onUnread);
    if (options.onError) this.on('error', options.onError);
    const begun = host.begin().then(
      (stored) => {
        this.begun = true;
        this.received = this.handled = stored;
        this.ask();
      },
      (error: unknown) => this.fail(RejoinError.of(error, 'storage_failed')),
    );
    this.soon = options.oneTab ? Promise.resolve() : begun;
  }

  /** Everything up to here has been handled. */
  get cursor(): string | undefined {
    return this.handled;
  }

  /** Tells the edge how far the user has read (default: all that was handled). */
  ack(ack: { delivered?: string; read?: string } = {}): void {
    const { handled } = this;
    const read = ack.read ?? (ack.delivered === undefined ? handled : undefined);
    if (read !== undefined) this.readAt = read;
    if (read !== undefined && !isLater(this.received ?? read, read)) this.setUnread(0);
    this.host.ack({ ...ack, ...(read !== undefined && { read }) });
  }

  /** Stops listening. What has been handled stays stored. */
  close(): void {
    this.end('closed');
  }

  /** Hands over one message at a time; asking for the next one says that this
   * one is done. Leaving the loop in the middle of one says that it is not. */
  [Symbol.asyncIterator](): AsyncIterator<Message<T>> {
    if (this.deliver) throw new TypeError('this subscription has a handler already');
    const consumer = new Consumer<T>(() => {
      if (this.consumer === consumer) this.consumer = this.deliver = undefined;
    });
    this.consumer = consumer;
    this.deliver = consumer.deliver;
    if (this.over) consumer.end(this.failure);
    void this.run();
    return consumer;
  }

  /** @internal another tab handles the channel */
  get elsewhere(): boolean {
    return this.options.oneTab === true && !this.begun;
  }

  /** @internal what to ask the edge for, if it is to be asked */
  wire(): Subscribe | undefined {
    if (!this.begun || this.asked || this.paused || this.over) return undefined;
    const { maxCatchup } = this.options;
    this.asked = true;
    return {
      channel: this.channel,
      from: this.received ?? this.options.from ?? 'tail',
      ...(maxCatchup && { max_catchup: maxCatchup }),
    };
  }

  /** @internal */
  onFrame(frame: ServerFrame): void {
    if (this.over) return;
    if (frame.signal) this.emit('signal', toSignal(frame.signal));
    else if (frame.receipt) this.onReceipt(frame.receipt);
    else if (frame.subscribed) this.onSubscribed(frame.subscribed);
    else if (frame.error) {
      // Only the answer to `connect` or `subscribe` has a number here.
      if (frame.req) this.onRefused(RejoinError.from(frame.error));
      else this.complain(RejoinError.from(frame.error));
    } else if (!this.onWire) return;
    else if (frame.messages) this.onMessages(frame.messages);
    else if (frame.live) this.onLive(frame.live.cursor!);
    else if (frame.ping) this.onPosition(frame.ping.positions?.[this.shard]);
    else if (frame.reset) {
      const { reason = '', head = '', earliest } = frame.reset;
      const reset = { channel: this.channel, reason, head, ...(earliest !== undefined && { earliest }) };
      this.received = head;
      this.wireLive = false;
      this.setState('catchingUp');
      this.host.reset(reset);
      this.push({ cursor: head, reset });
    } else if (frame.unsubscribed?.code) {
      this.fail(new RejoinError(frame.unsubscribed.code, frame.unsubscribed.message ?? '', { channel: this.channel }));
    }
  }

  /** @internal the edge did not answer with `subscribed` */
  onRefused(error: RejoinError): void {
    this.asked = false;
    if (error.code === 'disconnected') return;
    if (error.code === 'already_subscribed') return this.resubscribe();
    if (!error.retryable) return this.fail(error);
    this.timer.start(this.backoff.next(error.retryAfterMs), () => this.ask());
  }

  /** @internal */
  onDisconnected(): void {
    this.asked = this.onWire = this.wireLive = false;
    this.timer.stop();
    if (this.state === 'live' || this.state === 'catchingUp') this.setState('waiting');
  }

  private get over(): boolean {
    return this.state === 'closed' || this.state === 'failed';
  }

  private onSubscribed(subscribed: Subscribed): void {
    this.onWire = true;
    this.shard = subscribed.shard ?? 0;
    this.backoff.reset();
    this.setUnread(subscribed.unread ?? 0);
    if (this.received === undefined && subscribed.cursor) this.onPosition(subscribed.cursor, true);
    this.wireLive = false;
    this.setState('catchingUp');
  }

  private onMessages({ epoch = '', messages = [] }: Messages): void {
    for (const wire of messages) {
      const cursor = `${epoch}-${wire.seq ?? 0}`;
      if (!isLater(cursor, this.received)) {
        this.counts.duplicates++;
        continue;
      }
      if (this.skipped(epoch, wire.prev ?? 0) && !this.acceptGap(cursor)) return;
      this.received = cursor;
      if (this.wireLive && wire.sender !== this.host.user()) this.setUnread(this.unread + 1);
      this.push({ cursor, message: toMessage<T>(this.channel, cursor, wire, !this.wireLive) });
      if (this.queue.length >= QUEUE_MAX) {
        this.paused = true;
        this.leave();
        return;
      }
    }
  }

  /** Whether a message before this one, after our position, is missing. */
  private skipped(epoch: string, prev: number): boolean {
    const at = parseCursor(this.received);
    return at?.epoch === epoch && prev > at.seq;
  }

  /** Asks once for what was skipped; if that brings nothing, goes on. */
  private acceptGap(cursor: string): boolean {
    this.counts.gaps++;
    const again = this.gapAt === cursor;
    this.gapAt = cursor;
    const what = again ? 'asking again brought nothing' : 'asking again';
    this.complain(new RejoinError('gap', `messages between ${this.received} and ${cursor} are missing: ${what}`, { channel: this.channel }));
    if (!again) this.resubscribe();
    return again;
  }

  private onLive(cursor: string): void {
    // Over a fallback, every request ends with one.
    if (this.wireLive) return this.onPosition(cursor);
    this.wireLive = true;
    if (isLater(cursor, this.received)) this.received = cursor;
    this.push({ cursor: this.received ?? cursor, live: true });
  }

  private onPosition(cursor: string | undefined, first = false): void {
    if (cursor === undefined || (!first && !this.wireLive) || !isLater(cursor, this.received)) return;
    this.received = cursor;
    const last = this.queue.length > 1 ? this.queue.at(-1)! : undefined;
    if (last && !last.message && !last.live && !last.reset) last.cursor = cursor;
    else this.push({ cursor });
  }

  private push(item: Item<T>): void {
    this.queue.push(item);
    void this.run();
  }

  /** Hands the queue's items over, one after the other. */
  private async run(): Promise<void> {
    if (this.running) return;
    this.running = true;
    for (let item = this.queue[0]; item && !this.over; item = this.queue[0]) {
      if (item.message && !this.deliver) break;
      if (!(await this.handle(item))) continue;
      this.queue.shift();
      this.advance(item);
      if (this.paused && this.queue.length <= QUEUE_MAX / 2) {
        this.paused = false;
        this.ask();
      }
    }
    this.running = false;
  }

  private async handle({ message, reset, live, cursor }: Item<T>): Promise<boolean> {
    try {
      if (message) await this.deliver!(message);
      else if (reset) await this.options.onReset?.(reset);
      else if (live) await this.options.onLive?.(cursor);
      this.backoff.reset();
      return true;
    } catch (error) {
      if (error === Consumer.LEFT) return false;
      this.complain(new RejoinError('handler_failed', 'the handler failed; it will get this again', { channel: this.channel, cause: error }));
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.backoff.next());
        this.wakeUp = () => (clearTimeout(timer), resolve());
      });
      return false;
    }
  }

  private advance({ cursor, live }: Item<T>): void {
    if (cursor !== this.handled) {
      this.handled = cursor;
      if (this.options.persist !== false) this.host.save(cursor);
      if (this.options.autoAck) this.host.ack({ delivered: cursor });
    }
    if (live && this.wireLive && !this.over) this.setState('live');
  }

  /** @internal */
  ask(): void {
    const subscribe = this.wire();
    if (subscribe) this.host.ask(subscribe);
  }

  private leave(): void {
    this.asked = this.onWire = this.wireLive = false;
    this.host.leave();
    if (!this.over) this.setState('catchingUp');
  }

  private resubscribe(): void {
    this.leave();
    this.ask();
  }

  private fail(error: RejoinError): void {
    if (this.over) return;
    this.failure = error;
    this.complain(error);
    this.end('failed');
  }

  private end(state: 'closed' | 'failed'): void {
    if (this.over) return;
    const { asked } = this;
    this.setState(state);
    this.timer.stop();
    this.wakeUp?.();
    this.consumer?.end(this.failure);
    if (asked) this.leave();
    this.host.ended();
  }

  private complain(error: RejoinError): void {
    this.emit('error', error);
    this.host.report(error);
  }

  /** A count from before a read position that is known already is old. */
  private onReceipt({ read, unread = 0 }: Receipt): void {
    const [now, then] = [parseCursor(read), parseCursor(this.readAt)];
    if (then && (!now || (now.epoch === then.epoch && now.seq < then.seq))) return;
    if (read !== undefined) this.readAt = read;
    this.setUnread(unread);
  }

  private setUnread(unread: number): void {
    if (unread === this.unread) return;
    this.unread = unread;
    this.emit('unread', unread);
  }

  private setState(state: SubscriptionState): void {
    if (state === this.state) return;
    this.state = state;
    this.emit('state', state);
    this.host.changed();
  }
}
