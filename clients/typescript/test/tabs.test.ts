// Several tabs of one user over one storage. The lock manager here is a small
// one of the test; real browsers are in browser.test.ts.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { MemoryStorage, type Rejoin } from '../src/node.js';
import { Collector, client, eventually, reaches } from './helpers.js';
import { at, Peer } from './peer.js';

class Locks {
  private readonly held = new Set<string>();
  private waiting: { name: string; take: () => void }[] = [];

  readonly request = ((name: string, options: { ifAvailable?: boolean; signal?: AbortSignal }, callback: (lock: unknown) => unknown) =>
    new Promise((resolve, reject) => {
      const take = () => {
        this.held.add(name);
        void Promise.resolve(callback({ name })).then((value) => {
          this.held.delete(name);
          const next = this.waiting.findIndex((it) => it.name === name);
          if (next >= 0) this.waiting.splice(next, 1)[0]!.take();
          resolve(value);
        }, reject);
      };
      if (!this.held.has(name)) return take();
      if (options.ifAvailable) return resolve(callback(null));
      const waiter = { name, take };
      this.waiting.push(waiter);
      options.signal?.addEventListener('abort', () => {
        this.waiting = this.waiting.filter((it) => it !== waiter);
        reject(options.signal!.reason);
      });
    })) as unknown as LockManager['request'];
}

/** What differs between tabs: sessionStorage. A reload keeps it. */
class Session {
  private readonly map = new Map<string, string>();
  getItem = (key: string) => this.map.get(key) ?? null;
  setItem = (key: string, value: string) => void this.map.set(key, value);
}

const global = globalThis as unknown as { sessionStorage?: Session };
let peer: Peer;
let storage: MemoryStorage;
let open: Rejoin[];
const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');

beforeEach(async () => {
  peer = await Peer.start();
  storage = new MemoryStorage();
  open = [];
  Object.defineProperty(globalThis, 'navigator', { value: { locks: new Locks() }, configurable: true });
});
afterEach(async () => {
  for (const rejoin of open) await rejoin.close();
  await peer.stop();
  delete global.sessionStorage;
  if (before) Object.defineProperty(globalThis, 'navigator', before);
  else delete (globalThis as { navigator?: unknown }).navigator;
});

/** A client in a tab, connected. */
async function tab(session: Session, prepare: (rejoin: Rejoin) => void = () => {}, url = peer.url): Promise<Rejoin> {
  global.sessionStorage = session;
  const rejoin = client({ url, storage });
  open.push(rejoin);
  prepare(rejoin);
  rejoin.connect();
  if (url === peer.url) await reaches(rejoin, 'live');
  return rejoin;
}

const listen = (got: Collector<unknown>, gate?: Promise<void>) => (rejoin: Rejoin) =>
  rejoin.subscribe('room:1', {
    onMessage: async ({ data }) => {
      await gate;
      got.add(data);
    },
  });

test('each tab gets each message, and each rejoins where it was itself', async () => {
  const [fast, slow] = [new Session(), new Session()];
  const [gotFast, gotSlow] = [new Collector<unknown>(), new Collector<unknown>()];
  const first = await tab(fast, listen(gotFast));
  const second = await tab(slow, listen(gotSlow, new Promise(() => {})));
  peer.publish('room:1', 1);
  await gotFast.atLeast(1);
  await first.close();
  await second.close();
  peer.publish('room:1', 2);

  const [againFast, againSlow] = [new Collector<unknown>(), new Collector<unknown>()];
  await tab(slow, listen(againSlow));
  await tab(fast, listen(againFast));
  assert.deepEqual(await againSlow.atLeast(2), [1, 2], 'it had not handled 1');
  assert.deepEqual(await againFast.atLeast(1), [2], 'it had');
});

test('a tab that was just opened starts where the furthest of this device is', async () => {
  const got = new Collector<unknown>();
  const first = await tab(new Session(), listen(got));
  peer.publish('room:1', 1);
  await got.atLeast(1);
  await first.close();
  peer.publish('room:1', 2);
  const fresh = new Collector<unknown>();
  await tab(new Session(), listen(fresh));
  assert.deepEqual(await fresh.atLeast(1), [2]);
});

test('oneTab: one handles the channel, the next takes over from its cursor', async () => {
  const seen = new Collector<string>();
  const only = (name: string) => (rejoin: Rejoin) => {
    rejoin.subscribe('room:1', { oneTab: true, onMessage: ({ data }) => seen.add(`${name} ${data}`) });
    rejoin.subscribe('room:2', { onMessage: () => {} });
  };
  const first = await tab(new Session(), only('first'));
  const second = await tab(new Session(), only('second'));
  assert.equal(second.state, 'live', 'waiting for another tab is not being behind');
  peer.publish('room:1', 1);
  await seen.atLeast(1);
  await first.close();
  peer.publish('room:1', 2);
  await seen.atLeast(2);
  assert.deepEqual(seen.items, ['first 1', 'second 2']);
});

const outboxes = async () => (await storage.keys('rejoin/42/')).filter((key) => key.includes('/outbox/'));

test('the outbox of a tab that is gone is sent by another, that of a living one is not', async () => {
  const nowhere = 'http://127.0.0.1:1';
  const gone = await tab(new Session(), () => {}, nowhere);
  const living = await tab(new Session(), () => {}, nowhere);
  void gone.publish('room:1', 'orphan', { id: 'orphan' }).catch(() => {});
  void living.publish('room:1', 'kept', { id: 'kept' });
  await eventually(async () => (await outboxes()).length === 2);
  await gone.close();
  await tab(new Session(), listen(new Collector()));
  await peer.until(() => peer.log.length === 1);
  assert.deepEqual(peer.log.map(({ id }) => id), ['orphan']);
  await eventually(async () => (await outboxes()).length === 1);
  assert.deepEqual(living.pending.map(({ id }) => id), ['kept']);
});

test('a duplicated tab, which shares the session, takes another place', async () => {
  const session = new Session();
  const got = new Collector<unknown>();
  await tab(session, listen(got));
  const copy = new Session();
  Object.assign(copy, { map: new Map((session as unknown as { map: Map<string, string> }).map) });
  await tab(copy, listen(got));
  peer.publish('room:1', 1);
  assert.deepEqual(await got.atLeast(2), [1, 1]);
  await Promise.all(open.map((rejoin) => rejoin.close()));
  const keys = (await storage.keys('rejoin/42/')).filter((key) => key.includes('/cursor/room:1/'));
  assert.equal(keys.length, 2);
  for (const key of keys) assert.match((await storage.get(key))!, new RegExp(`^${at(1)} `));
});
