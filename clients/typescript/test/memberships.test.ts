// The inbox and the rooms, where an edge does what it seldom does. Over real
// edges: edges.test.ts.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { MemoryStorage, type Rejoin, type RejoinError, type Subscription } from '../src/node.js';
import { Collector, client, reaches } from './helpers.js';
import { at, Peer } from './peer.js';

let peer: Peer;
let rejoin: Rejoin | undefined;
beforeEach(async () => {
  peer = await Peer.start();
});
afterEach(async () => {
  await rejoin?.close();
  await peer.stop();
});

/** An edge that starts these channels of itself. */
function starting(...channels: string[]): void {
  peer.intercept = (frame, send) => {
    if (!frame.connect) return false;
    send({ req: frame.req!, connected: { user: '42', ping_ms: 25_000 } });
    for (const channel of channels) send({ req: frame.req!, subscribed: { channel, cursor: at(0), head: peer.head } });
    return true;
  };
}

test('what the edge starts is listened to from there, and after a reload from the stored cursor', async () => {
  starting('user:42', 'room:7');
  for (const data of ['one', 'two']) peer.publish('room:7', data);
  const storage = new MemoryStorage();
  const got = new Collector<unknown>();
  const options = { url: peer.url, storage, inbox: { onMessage: () => {} }, rooms: { onMessage: ({ data }: { data: unknown }) => got.add(data) } };
  rejoin = client(options);
  const found = new Collector<Subscription>();
  rejoin.on('subscription', found.add);
  rejoin.connect();
  assert.deepEqual((await found.atLeast(2)).map(({ channel }) => channel), ['user:42', 'room:7']);
  assert.deepEqual(await got.atLeast(2), ['one', 'two']);
  await reaches(rejoin, 'live');
  // One request each, and no refusal on the way.
  const asked = peer.heard.map((frame) => Object.keys(frame).find((key) => key !== 'req')).filter((key) => key !== 'pong');
  assert.deepEqual(asked, ['connect', 'unsubscribe', 'unsubscribe', 'subscribe', 'subscribe']);
  const [first] = peer.heardOf('connect');
  assert.deepEqual([first!.inbox, first!.rooms], [true, true]);

  // In the same session they are named: nothing has to be asked twice.
  starting();
  peer.cut();
  await reaches(rejoin, 'offline');
  await peer.until(() => peer.heardOf('connect').length === 2);
  const second = peer.heardOf('connect')[1]!;
  assert.deepEqual(second.subscriptions!.map(({ channel, from }) => [channel, from]), [['user:42', at(2)], ['room:7', at(2)]]);
  assert.equal(second.inbox, undefined);
  await rejoin.close();

  starting('user:42', 'room:7');
  peer.publish('room:7', 'three');
  rejoin = client(options);
  rejoin.connect();
  assert.deepEqual(await got.atLeast(3), ['one', 'two', 'three']);
});

test('an edge that cannot say which rooms there are is asked again', async () => {
  peer.intercept = (frame, send) => {
    if (!frame.connect) return false;
    send({ req: frame.req!, connected: { user: '42', ping_ms: 25_000 } });
    send({ req: frame.req!, error: { code: 'unavailable', message: 'the store is away', retryable: true, retry_after_ms: 1 } });
    return true;
  };
  const asked: string[] = [];
  const answers = [
    () => new Response('{}', { status: 503 }),
    () => Response.json({ rooms: ['room:1', 'room:2'], more: true }),
    () => Response.json({ rooms: ['room:3'], more: false }),
  ];
  const fetch: typeof globalThis.fetch = async (url) => {
    asked.push(new URL(String(url)).search);
    return answers[asked.length - 1]!();
  };
  rejoin = client({ url: peer.url, fetch, rooms: {}, random: () => 0 });
  const errors: RejoinError[] = [];
  rejoin.on('error', (error) => errors.push(error));
  const found = new Collector<Subscription>();
  rejoin.on('subscription', found.add);
  rejoin.connect();
  const channels = (await found.atLeast(3)).map(({ channel }) => channel);
  assert.deepEqual(channels, ['room:1', 'room:2', 'room:3']);
  assert.deepEqual(asked, ['?limit=1000', '?limit=1000', '?limit=1000&after=room%3A2']);
  assert.deepEqual(errors, []);
});

test('an edge without rooms says so', async () => {
  peer.intercept = (frame, send) => {
    if (!frame.connect) return false;
    send({ req: frame.req!, connected: { user: '42', ping_ms: 25_000 } });
    send({ req: frame.req!, error: { code: 'unsupported', message: 'no store', retryable: false } });
    return true;
  };
  rejoin = client({ url: peer.url, rooms: {} });
  rejoin.connect();
  assert.equal((await rejoin.once('error')).code, 'unsupported');
});
