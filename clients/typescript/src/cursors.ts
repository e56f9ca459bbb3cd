// Where each channel's handled position is kept, by channel and place.

import { isLater, parseCursor } from './cursor.js';
import type { Storage } from './storage/storage.js';

export class Cursors {
  private readonly unsaved = new Map<string, string>();
  private saving: Promise<void> | undefined;

  constructor(
    private readonly storage: Storage,
    private readonly prefix: string,
    private readonly now: () => number,
    private readonly onError: (error: unknown) => void,
  ) {}

  /** The stored position of a place, or the furthest of all places. */
  async load(channel: string, place: string | undefined): Promise<string | undefined> {
    await this.saving;
    const keys = place === undefined ? await this.storage.keys(`${this.prefix}${channel}/`) : [this.key(channel, place)];
    let best: { cursor: string; at: number } | undefined;
    for (const key of keys) {
      const [cursor, at] = (await this.storage.get(key))?.split(' ') ?? [];
      if (!cursor) continue;
      const found = { cursor, at: Number(at) };
      if (!best || this.isFurther(found, best)) best = found;
    }
    return best?.cursor;
  }

  /** Stores a position soon; of several, only the last is written. */
  save(channel: string, place: string, cursor: string): void {
    this.unsaved.set(this.key(channel, place), `${cursor} ${this.now()}`);
    this.saving ??= this.write();
  }

  /** Resolves once everything saved so far is stored. */
  async flush(): Promise<void> {
    await this.saving;
  }

  private async write(): Promise<void> {
    // Not in the same turn: what is handled together is written once.
    await Promise.resolve();
    while (this.unsaved.size > 0) {
      const batch = [...this.unsaved];
      this.unsaved.clear();
      const results = await Promise.allSettled(batch.map(([key, value]) => this.storage.set(key, value)));
      for (const result of results) if (result.status === 'rejected') this.onError(result.reason);
    }
    this.saving = undefined;
  }

  private key(channel: string, place: string): string {
    return `${this.prefix}${channel}/${place}`;
  }

  /** Sequences of two epochs do not compare: the later one written counts. */
  private isFurther(a: { cursor: string; at: number }, b: { cursor: string; at: number }): boolean {
    const sameEpoch = parseCursor(a.cursor)?.epoch === parseCursor(b.cursor)?.epoch;
    return sameEpoch ? isLater(a.cursor, b.cursor) : a.at > b.at;
  }
}
