// What the tests share.

import { MemoryStorage, Rejoin, type RejoinOptions, type RejoinState } from '../src/node.js';

/** A JWT without a valid signature, for what only looks inside. */
export function unsigned(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part(claims)}.`;
}

/** A client that does not wait long, with everything of its own. */
export function client(options: Partial<RejoinOptions> & { url: string }): Rejoin {
  return new Rejoin({
    ...(options.getToken ? {} : { token: unsigned({ sub: '42' }) }),
    storage: new MemoryStorage(),
    retryMinMs: 20,
    retryMaxMs: 100,
    transports: ['websocket'],
    ...options,
  });
}

export async function reaches(rejoin: Rejoin, state: RejoinState): Promise<void> {
  if (rejoin.state !== state) await rejoin.once(state);
}

/** Collects, and tells when enough is there. */
export class Collector<T> {
  readonly items: T[] = [];
  private waiting: { count: number; resolve: () => void }[] = [];

  readonly add = (item: T): void => {
    this.items.push(item);
    this.waiting = this.waiting.filter(({ count, resolve }) => this.items.length < count || (resolve(), false));
  };

  async atLeast(count: number): Promise<T[]> {
    if (this.items.length < count) await new Promise<void>((resolve) => this.waiting.push({ count, resolve }));
    return this.items;
  }
}

export function deferred<T = void>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((it) => (resolve = it));
  return { promise, resolve };
}

/** Resolves once `test` holds, looked at in every turn of the event loop; the
 * runner's timeout ends it otherwise. */
export async function eventually(test: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await test())) await new Promise((resolve) => setImmediate(resolve));
}
