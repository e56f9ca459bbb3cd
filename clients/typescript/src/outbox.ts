// What is to be published: stored first, then sent, in order within a channel,
// always under the id that it was given when the user pressed send.

import { Backoff } from './backoff.js';
import { RejoinError } from './errors.js';
import { toBase64 } from './http.js';
import type { Publish, Published } from './protocol.js';
import type { OnReply } from './requests.js';
import type { Storage } from './storage/storage.js';
import { newId } from './uuid.js';

const RETRY_MS = [1_000, 30_000] as const;

export interface PublishResult {
  id: string;
  /** Its position, for ever. */
  cursor: string;
  /** Whether an earlier attempt under the same id had stored it. */
  duplicate: boolean;
}

export interface OutboxEntry {
  readonly id: string;
  readonly channel: string;
  readonly type?: string;
  /** Absent where bytes are to be published. */
  readonly data?: unknown;
  readonly data_base64?: string;
  /** When it was published by the application, in milliseconds since the Unix epoch. */
  readonly time: number;
  state: 'pending' | 'sent' | 'failed';
  /** Why it failed. */
  error?: { code: string; message: string };
  /** Where it is, once sent. */
  cursor?: string;
}

interface Slot {
  entry: OutboxEntry;
  /** Orders the stored entries. */
  key: string;
  stored: boolean;
  sending: boolean;
  promise: Promise<PublishResult>;
  resolve: (result: PublishResult) => void;
  reject: (error: RejoinError) => void;
  timer?: ReturnType<typeof setTimeout>;
}

export interface OutboxHost {
  /** Calls `onReply` exactly once. */
  publish(publish: Publish, onReply: OnReply): void;
  changed(entry: OutboxEntry): void;
  failed(error: unknown): void;
  /** Longest payload in bytes that the edge takes; 0: not known. */
  maxBytes(): number;
  random: () => number;
  now: () => number;
}

export class Outbox {
  private slots: Slot[] = [];
  private storage: Storage | undefined;
  private prefix = '';
  private connected = false;
  private readonly backoff: Backoff;

  constructor(
    private readonly host: OutboxHost,
    /** Publishes of one channel that may be under way at once. */
    private readonly window: number,
    private readonly max: number,
  ) {
    this.backoff = new Backoff(...RETRY_MS, host.random);
  }

  /** What has not been sent, oldest first. */
  get entries(): OutboxEntry[] {
    return this.slots.map((slot) => ({ ...slot.entry }));
  }

  /** Loads what an earlier page left under `prefix`, ahead of what this one has. */
  async open(storage: Storage, prefix: string): Promise<void> {
    const read = await this.read(storage, prefix);
    this.storage = storage;
    this.prefix = prefix;
    // Published again before it was loaded: one message, where it was.
    const earlier = read.map((slot) => {
      const again = this.find(slot.entry.id);
      return again ? Object.assign(again, { key: slot.key, stored: true }) : slot;
    });
    this.slots = [...earlier, ...this.slots.filter((slot) => !earlier.includes(slot))];
    for (const slot of earlier) this.host.changed({ ...slot.entry });
    for (const slot of this.slots) if (!slot.stored) void this.store(slot);
    this.flush();
  }

  /** Takes over what a place that is gone has left. */
  async adopt(prefix: string): Promise<void> {
    if (!this.storage) return;
    for (const slot of await this.read(this.storage, prefix)) {
      if (this.find(slot.entry.id)) continue;
      this.slots.push(slot);
      await this.store(slot);
      this.host.changed({ ...slot.entry });
    }
    for (const key of await this.storage.keys(prefix)) await this.storage.delete(key);
    this.slots.sort((a, b) => (a.key < b.key ? -1 : 1));
    this.flush();
  }

  add(channel: string, data: unknown, options: { id?: string | undefined; type?: string | undefined }): Promise<PublishResult> {
    const id = options.id ?? newId();
    const known = this.find(id);
    if (known) return known.promise;
    if (this.slots.length >= this.max) {
      const message = `the outbox holds ${this.max} messages already`;
      return Promise.reject(new RejoinError('outbox_full', message, { channel }));
    }
    const content = data instanceof Uint8Array ? { data_base64: toBase64(data) } : { data: data ?? null };
    const type = options.type ? { type: options.type } : {};
    // A copy, as it is sent: what the application does to its object later
    // must not change a retry. This also throws now if it is not JSON.
    const entry = JSON.parse(JSON.stringify({ id, channel, ...type, ...content, time: this.host.now(), state: 'pending' })) as OutboxEntry;
    const slot = this.slot(entry, newId());
    this.slots.push(slot);
    this.host.changed({ ...entry });
    if (this.storage) void this.store(slot);
    return slot.promise;
  }

  /** Sends a failed one again. */
  retry(id: string): Promise<PublishResult> {
    const slot = this.find(id);
    if (!slot) return Promise.reject(new RejoinError('not_found', `${id} is not in the outbox`));
    if (slot.entry.state === 'failed') {
      Object.assign(slot, this.slot(slot.entry, slot.key));
      delete slot.entry.error;
      this.become(slot, 'pending');
      void this.store(slot);
    }
    return slot.promise;
  }

  /** Forgets one that is not being sent; false if it is, or is not there. */
  async discard(id: string): Promise<boolean> {
    const slot = this.find(id);
    if (!slot || slot.sending) return false;
    slot.reject(new RejoinError('closed', 'discarded'));
    await this.remove(slot);
    return true;
  }

  setConnected(connected: boolean): void {
    this.connected = connected;
    if (connected) this.backoff.reset();
    for (const slot of this.slots) {
      clearTimeout(slot.timer);
      delete slot.timer;
    }
    this.flush();
  }

  private flush(): void {
    if (!this.connected || !this.storage) return;
    const busy = new Map<string, number>();
    for (const slot of [...this.slots]) {
      const { channel, state } = slot.entry;
      if (state !== 'pending') continue;
      const ahead = busy.get(channel) ?? 0;
      busy.set(channel, ahead + 1);
      if (ahead >= this.window || slot.sending) continue;
      // Not stored yet, or told to wait: nothing of its channel overtakes it.
      if (!slot.stored || slot.timer) busy.set(channel, this.window);
      else this.send(slot);
    }
  }

  private send(slot: Slot): void {
    const { id, channel, type, data, data_base64 } = slot.entry;
    const content = data_base64 === undefined ? { data } : { data_base64 };
    const bytes = data_base64 === undefined ? new TextEncoder().encode(JSON.stringify(data)).length : (data_base64.length * 3) / 4 - 2;
    const maxBytes = this.host.maxBytes();
    if (maxBytes > 0 && bytes > maxBytes) {
      this.fail(slot, new RejoinError('too_large', `${bytes} bytes are more than ${maxBytes}`, { channel }));
      return;
    }
    slot.sending = true;
    this.host.publish({ id, channel, ...(type !== undefined && { type }), ...content }, (frame, error) => {
      slot.sending = false;
      if (frame?.published) this.sent(slot, frame.published);
      else if (error?.code === 'disconnected') return;
      else if (error && !error.retryable) this.fail(slot, error);
      else {
        slot.timer = setTimeout(() => {
          delete slot.timer;
          this.flush();
        }, this.backoff.next(error?.retryAfterMs));
      }
    });
  }

  private sent(slot: Slot, { cursor = '', duplicate = false }: Published): void {
    this.backoff.reset();
    slot.entry.cursor = cursor;
    // Removed first: after `sent`, the application sees it gone.
    void this.remove(slot).then(() => {
      this.become(slot, 'sent');
      slot.resolve({ id: slot.entry.id, cursor, duplicate });
    });
    this.flush();
  }

  private fail(slot: Slot, error: RejoinError): void {
    slot.entry.error = { code: error.code, message: error.message };
    this.become(slot, 'failed');
    void this.store(slot).then(() => slot.reject(error));
  }

  private become(slot: Slot, state: OutboxEntry['state']): void {
    slot.entry.state = state;
    this.host.changed({ ...slot.entry });
  }

  /** Stores it, then sends. What cannot be stored is still sent. */
  private async store(slot: Slot): Promise<void> {
    try {
      await this.storage?.set(this.prefix + slot.key, JSON.stringify(slot.entry));
    } catch (error) {
      this.host.failed(error);
    }
    slot.stored = true;
    this.flush();
  }

  private async remove(slot: Slot): Promise<void> {
    clearTimeout(slot.timer);
    this.slots = this.slots.filter((other) => other !== slot);
    try {
      await this.storage?.delete(this.prefix + slot.key);
    } catch (error) {
      this.host.failed(error);
    }
  }

  private async read(storage: Storage, prefix: string): Promise<Slot[]> {
    const slots: Slot[] = [];
    for (const key of (await storage.keys(prefix)).sort()) {
      const text = await storage.get(key);
      if (text === undefined) continue;
      const entry = JSON.parse(text) as OutboxEntry;
      slots.push({ ...this.slot(entry, key.slice(prefix.length)), stored: true });
    }
    return slots;
  }

  private slot(entry: OutboxEntry, key: string): Slot {
    let resolve!: Slot['resolve'];
    let reject!: Slot['reject'];
    const promise = new Promise<PublishResult>((...both) => ([resolve, reject] = both));
    // Nobody may be waiting for it, as after a reload; `failed` says it too.
    promise.catch(() => {});
    return { entry, key, stored: false, sending: false, promise, resolve, reject };
  }

  private find(id: string): Slot | undefined {
    return this.slots.find((slot) => slot.entry.id === id);
  }
}
