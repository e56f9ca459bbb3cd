// Where this user's things are kept on this device: found out once, before
// anything is read or written.

import { Cursors } from './cursors.js';
import { RejoinError } from './errors.js';
import type { Storage } from './storage/storage.js';
import { lock, placeLock, takePlace, type LocksLike, type Place, type Session } from './tabs.js';
import { subject, type TokenSource } from './token.js';
import { newId } from './uuid.js';

const DEVICE_KEY = 'rejoin/device';
const USER_KEY = 'rejoin/user';
/** Of a token that does not say whose it is. */
const NOBODY = '-';

export interface HomeOptions {
  storage: Storage;
  tokens: TokenSource;
  user: string | undefined;
  device: string | undefined;
  now: () => number;
  onError: (error: unknown) => void;
}

export class Home {
  readonly cursors: Cursors;

  private constructor(
    readonly storage: Storage,
    readonly user: string,
    readonly device: string,
    readonly scope: string,
    readonly place: Place,
    private readonly locks: LocksLike | undefined,
    options: HomeOptions,
  ) {
    this.cursors = new Cursors(storage, `${scope}/cursor/`, options.now, options.onError);
  }

  static async find(options: HomeOptions): Promise<Home> {
    const { storage } = options;
    const device = options.device ?? (await deviceOf(storage));
    const user = options.user ?? (await whose(options));
    const scope = `rejoin/${encodeURIComponent(user)}/${device}`;
    // The lock manager of a sandboxed page exists and refuses.
    const { navigator, sessionStorage } = globalThis as { navigator?: { locks?: LocksLike }; sessionStorage?: Session };
    const locks = navigator?.locks;
    const place = await takePlace(scope, locks, sessionStorage);
    return new Home(storage, user, device, scope, place, locks, options);
  }

  get outboxPrefix(): string {
    return this.outboxOf(this.place.name);
  }

  /** Where a channel's cursor is kept, and where it starts. `oneTab` waits
   * until no other tab handles the channel. */
  async begin(channel: string, oneTab: boolean): Promise<{ place: string; cursor: string | undefined; release: () => void }> {
    if (oneTab) {
      const release = this.locks && (await lock(this.locks, `${this.scope}/one/${channel}`));
      return { place: 'one', cursor: await this.cursors.load(channel, 'one'), release: release ?? (() => {}) };
    }
    const { name, fresh } = this.place;
    const cursor = await this.cursors.load(channel, fresh ? undefined : name);
    // From now on it is this tab's own, also if nothing comes before a reload.
    if (fresh && cursor !== undefined) this.cursors.save(channel, name, cursor);
    return { place: name, cursor, release: () => {} };
  }

  /** Calls `adopt` with the outbox of every tab that is gone. */
  async forOrphans(adopt: (prefix: string) => Promise<void>): Promise<void> {
    if (!this.locks) return;
    const prefix = `${this.scope}/outbox/`;
    const places = new Set((await this.storage.keys(prefix)).map((key) => key.slice(prefix.length).split('/')[0]!));
    places.delete(this.place.name);
    for (const place of places) {
      const release = await lock(this.locks, placeLock(this.scope, place), 0);
      if (!release) continue;
      await adopt(this.outboxOf(place)).finally(release);
    }
  }

  /** Whether what is kept here may be used by the user that the edge named. */
  belongsTo(user: string | undefined): boolean {
    return !user || this.user === NOBODY || this.user === user;
  }

  /** For the next start, should it be offline. */
  async remember(): Promise<void> {
    await this.storage.set(USER_KEY, this.user);
  }

  private outboxOf(place: string): string {
    return `${this.scope}/outbox/${place}/`;
  }
}

/** The same for all tabs, also for those that start together. */
async function deviceOf(storage: Storage): Promise<string> {
  const known = await storage.get(DEVICE_KEY);
  if (known !== undefined) return known;
  const made = newId();
  if (storage.add) return storage.add(DEVICE_KEY, made);
  await storage.set(DEVICE_KEY, made);
  return made;
}

async function whose({ tokens, storage }: HomeOptions): Promise<string> {
  try {
    return subject(await tokens.get()) ?? NOBODY;
  } catch (error) {
    const last = await storage.get(USER_KEY);
    if (last !== undefined) return last;
    throw RejoinError.of(error, 'no_token');
  }
}
