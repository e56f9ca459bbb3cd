// What a subscription does with what arrives.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { MemoryStorage, type Message, type Rejoin, type RejoinError, type Reset } from '../src/node.js';
import { Collector, client, deferred, reaches } from './helpers.js';
import { at, EPOCH, Peer } from './peer.js';

let peer: Peer;
let rejoin: Rejoin;
beforeEach(async () => {
  peer = await Peer.start();
  rejoin = client({ url: peer.url });
});
afterEach(async () => {
  await rejoin.close();
  await peer.stop();
});

const froms = (channel: string) =>
  [...peer.heardOf('connect').flatMap((it) => it.subscriptions ?? []), ...peer.heardOf('subscribe')]
    .filter((it) => it.channel === channel)
    .map((it) => it.from);

describe('messages', () => {
  test('arrive with everything that was said of them', async () => {
    const got = new Collector<Message>();
    rejoin.subscribe('room:1', { onMessage: got.add });
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:1', { text: 'hi' }, { id: 'a', type: 'chat', sender: '7', time: 5, traceparent: 't' });
    peer.publish('room:1', undefined, { data_base64: 'AP8=' });
    const [first, second] = await got.atLeast(2);
    assert.deepEqual(first, {
      channel: 'room:1', cursor: at(1), id: 'a', type: 'chat', sender: '7', time: 5, data: { text: 'hi' }, replayed: false, traceparent: 't',
    });
    assert.deepEqual([...second!.bytes!], [0, 255]);
    assert.equal(second!.data, undefined);
  });

  test('are handled one at a time, in order, also by a slow handler', async () => {
    const seen: string[] = [];
    const done = new Collector<unknown>();
    rejoin.subscribe('room:1', {
      onMessage: async ({ data }) => {
        seen.push(`begin ${data}`);
        // The first takes longer than the others.
        if (data === 1) await peer.until(() => peer.log.length === 3);
        seen.push(`end ${data}`);
        done.add(data);
      },
    });
    rejoin.connect();
    await reaches(rejoin, 'live');
    for (const data of [1, 2, 3]) peer.publish('room:1', data);
    rejoin.publish('room:2', 'makes the peer check its waiters');
    await done.atLeast(3);
    assert.deepEqual(seen, ['begin 1', 'end 1', 'begin 2', 'end 2', 'begin 3', 'end 3']);
  });

  test('replayed ones say so, and live comes after the last was handled', async () => {
    const seen: unknown[] = [];
    for (const data of [1, 2]) peer.publish('room:1', data);
    const live = deferred<string>();
    rejoin.subscribe('room:1', {
      from: 'earliest',
      onMessage: async ({ data, replayed }) => {
        await Promise.resolve();
        seen.push([data, replayed]);
      },
      onLive: (cursor) => (seen.push('live'), live.resolve(cursor)),
    });
    rejoin.connect();
    assert.equal(await live.promise, at(2));
    assert.deepEqual(seen, [[1, true], [2, true], 'live']);
  });

  test('that come a second time are dropped', async () => {
    const got = new Collector<unknown>();
    const sub = rejoin.subscribe('room:1', { onMessage: ({ data }) => got.add(data) });
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:1', 'once');
    peer.broadcast({ messages: { channel: 'room:1', epoch: EPOCH, messages: [{ seq: 1, data: 'once' }] } });
    peer.publish('room:1', 'after');
    assert.deepEqual(await got.atLeast(2), ['once', 'after']);
    assert.equal(sub.counts.duplicates, 1);
  });

  test('of a new epoch go on, whatever its sequences', async () => {
    const got = new Collector<string>();
    rejoin.subscribe('room:1', { onMessage: ({ cursor }) => got.add(cursor) });
    rejoin.connect();
    await reaches(rejoin, 'live');
    for (let i = 0; i < 3; i++) peer.publish('room:1', i);
    const epoch = '00000000000000e2';
    peer.broadcast({ messages: { channel: 'room:1', epoch, messages: [{ seq: 1, data: 'new' }] } });
    assert.deepEqual((await got.atLeast(4))[3], `${epoch}-1`);
  });
});

describe('a gap', () => {
  test('is reported and repaired by asking again from the position', async () => {
    const got = new Collector<unknown>();
    const errors: RejoinError[] = [];
    const sub = rejoin.subscribe('room:1', { onMessage: ({ data }) => got.add(data), onError: (error) => errors.push(error) });
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:1', 1);
    await got.atLeast(1);
    // In the log, but skipped on the wire.
    peer.log.push({ channel: 'room:1', seq: 2, prev: 1, data: 2 });
    peer.publish('room:1', 3);
    assert.deepEqual(await got.atLeast(3), [1, 2, 3]);
    assert.deepEqual(errors.map((it) => it.code), ['gap']);
    assert.equal(sub.counts.gaps, 1);
    assert.deepEqual(froms('room:1'), ['tail', at(1)]);
  });

  test('that asking again does not fill is passed over, and said', async () => {
    const got = new Collector<unknown>();
    const errors: RejoinError[] = [];
    rejoin.subscribe('room:1', { onMessage: ({ data }) => got.add(data), onError: (error) => errors.push(error) });
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:1', 1);
    peer.publish('room:1', 5, { prev: 4, seq: 5 });
    assert.deepEqual(await got.atLeast(2), [1, 5]);
    assert.equal(errors.length, 2);
    assert.match(errors[1]!.message, /brought nothing/);
  });
});

describe('handlers', () => {
  test('one that fails gets the same message again, and nothing before it', async () => {
    const seen: unknown[] = [];
    const errors: RejoinError[] = [];
    const got = new Collector<unknown>();
    const sub = rejoin.subscribe('room:1', {
      onMessage: ({ data }) => {
        seen.push(data);
        if (seen.length <= 1) throw new Error('database is away');
        got.add(data);
      },
      onError: (error) => errors.push(error),
    });
    // Retries of handlers wait a second at first: do not sit that out.
    (sub as unknown as { backoff: { limits(a: number, b: number): void } }).backoff.limits(1, 1);
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:1', 1);
    peer.publish('room:1', 2);
    await got.atLeast(2);
    assert.deepEqual(seen, [1, 1, 2]);
    assert.deepEqual(errors.map((it) => it.code), ['handler_failed']);
    assert.equal((errors[0]!.cause as Error).message, 'database is away');
  });

  test('a very slow one makes the client leave and catch up, without loss', async () => {
    const gate = deferred();
    const got = new Collector<number>();
    rejoin.subscribe<number>('room:1', {
      onMessage: async ({ data }) => {
        await gate.promise;
        got.add(data);
      },
    });
    rejoin.connect();
    await reaches(rejoin, 'live');
    const total = 3_000;
    for (let i = 0; i < total; i++) peer.publish('room:1', i);
    await peer.until(() => peer.heardOf('unsubscribe').length === 1);
    assert.equal(peer.heardOf('subscribe').length, 0, 'not before there is room');
    gate.resolve();
    await got.atLeast(total);
    assert.deepEqual(got.items, Array.from({ length: total }, (_, i) => i));
    assert.ok(froms('room:1').includes(at(1_000)));
    await reaches(rejoin, 'live');
  });
});

describe('cursors', () => {
  test('are stored after the handler, and a reload goes on from there', async () => {
    const storage = new MemoryStorage();
    const gate = deferred();
    rejoin = client({ url: peer.url, storage });
    const begun = new Collector<unknown>();
    rejoin.subscribe('room:1', {
      onMessage: async ({ data }) => {
        begun.add(data);
        if (data === 2) await gate.promise;
      },
    });
    rejoin.connect();
    await reaches(rejoin, 'live');
    for (const data of [1, 2, 3]) peer.publish('room:1', data);
    await begun.atLeast(2);
    // The page is gone in the middle of message 2.
    await rejoin.close();

    rejoin = client({ url: peer.url, storage });
    const got = new Collector<unknown>();
    rejoin.subscribe('room:1', { onMessage: ({ data }) => got.add(data) });
    rejoin.connect();
    assert.deepEqual(await got.atLeast(2), [2, 3]);
    assert.deepEqual(froms('room:1'), ['tail', at(1)]);
    gate.resolve();
  });

  test('the one of `subscribed` is stored, so that the time before the first message is safe', async () => {
    const storage = new MemoryStorage();
    peer.publish('room:1', 'old');
    for (let i = 0; i < 2; i++) {
      rejoin = client({ url: peer.url, storage });
      const got = new Collector<unknown>();
      rejoin.subscribe('room:1', { onMessage: ({ data }) => got.add(data) });
      rejoin.connect();
      await reaches(rejoin, 'live');
      if (i === 1) assert.deepEqual(await got.atLeast(1), ['while away']);
      await rejoin.close();
      peer.publish('room:1', 'while away');
    }
  });

  test('are kept apart by user, device and channel', async () => {
    const storage = new MemoryStorage();
    peer.intercept = ({ req, connect }, send) => {
      if (!connect) return false;
      send({ req: req!, connected: { ping_ms: 25_000 } });
      for (const { channel } of connect.subscriptions ?? []) send({ subscribed: { channel: channel!, cursor: at(7) } });
      send({ live: { channel: 'room:1', cursor: at(7) } });
      return true;
    };
    for (const [user, device] of [['1', 'a'], ['2', 'a'], ['1', 'b'], ['1', 'a']] as const) {
      rejoin = client({ url: peer.url, storage, user, device });
      rejoin.subscribe('room:1', { onMessage: () => {} });
      rejoin.connect();
      await reaches(rejoin, 'live');
      await rejoin.close();
    }
    assert.deepEqual(froms('room:1'), ['tail', 'tail', 'tail', at(7)]);
  });

  test('without persist: always from `from`', async () => {
    const storage = new MemoryStorage();
    peer.publish('room:1', 1);
    for (let i = 0; i < 2; i++) {
      rejoin = client({ url: peer.url, storage });
      const got = new Collector<unknown>();
      rejoin.subscribe('room:1', { from: 'earliest', persist: false, onMessage: ({ data }) => got.add(data) });
      rejoin.connect();
      await got.atLeast(1);
      await rejoin.close();
    }
    assert.deepEqual(froms('room:1'), ['earliest', 'earliest']);
  });

  test('advance on a quiet channel with the positions of pings', async () => {
    const sub = rejoin.subscribe('room:1', { onMessage: () => {} });
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:2', 'elsewhere');
    peer.broadcast({ ping: { positions: { 0: at(1), 1: at(9) } } });
    await peer.until(() => peer.heardOf('pong').length === 1);
    assert.equal(sub.cursor, at(1));
    peer.cut();
    await reaches(rejoin, 'offline');
    await reaches(rejoin, 'live');
    assert.deepEqual(froms('room:1'), ['tail', at(1)]);
  });

  test('do not pass messages that are not handled yet', async () => {
    const gate = deferred();
    const sub = rejoin.subscribe('room:1', { onMessage: () => gate.promise });
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:1', 1);
    peer.publish('room:2', 2);
    peer.broadcast({ ping: { positions: { 0: at(2) } } });
    await peer.until(() => peer.heardOf('pong').length === 1);
    assert.equal(sub.cursor, at(0));
    gate.resolve();
    peer.broadcast({ ping: {} });
    await peer.until(() => peer.heardOf('pong').length === 2);
    assert.equal(sub.cursor, at(2));
  });
});

describe('a reset', () => {
  test('reaches the application before what follows, and the client too', async () => {
    peer.intercept = ({ req, connect }, send) => {
      if (!connect) return false;
      const channel = 'room:1';
      send({ req: req!, connected: { user: '42', ping_ms: 25_000 } });
      send({ req: req!, subscribed: { channel, cursor: at(1), replay: true } });
      send({ reset: { channel, reason: 'expired', head: at(50), earliest: at(40) } });
      send({ live: { channel, cursor: at(50) } });
      send({ messages: { channel, epoch: EPOCH, messages: [{ seq: 51, prev: 45, data: 'after' }] } });
      return true;
    };
    const seen: unknown[] = [];
    const got = new Collector<unknown>();
    const ofClient = new Collector<Reset>();
    rejoin.on('reset', ofClient.add);
    const sub = rejoin.subscribe('room:1', {
      from: at(1),
      onReset: async (reset) => {
        await Promise.resolve();
        seen.push(reset);
      },
      onMessage: ({ data }) => (seen.push(data), got.add(data)),
    });
    rejoin.connect();
    await got.atLeast(1);
    const reset = { channel: 'room:1', reason: 'expired', head: at(50), earliest: at(40) };
    assert.deepEqual(seen, [reset, 'after']);
    assert.deepEqual(ofClient.items, [reset]);
    assert.equal(sub.counts.gaps, 0);
  });
});

describe('async iteration', () => {
  test('a message counts as handled when the next one is asked for', async () => {
    const sub = rejoin.subscribe<number>('room:1');
    rejoin.connect();
    await rejoin.once('catchingUp');
    await peer.until(() => peer.heard.length > 0);
    for (const data of [1, 2, 3]) peer.publish('room:1', data);
    const seen: number[] = [];
    for await (const { data, cursor } of sub) {
      seen.push(data);
      assert.notEqual(sub.cursor, cursor, 'not while it is being handled');
      if (data === 3) break;
    }
    assert.deepEqual(seen, [1, 2, 3]);
    assert.equal(sub.cursor, at(2), 'the loop was left in the middle of 3');
    for await (const { data } of sub) {
      assert.equal(data, 3, 'so it comes again');
      sub.close();
    }
    assert.equal(sub.state, 'closed');
  });

  test('a loop ends with its subscription, and throws if that failed', async () => {
    const sub = rejoin.subscribe('room:1');
    rejoin.connect();
    await peer.until(() => peer.heard.length > 0);
    peer.broadcast({ unsubscribed: { channel: 'room:1', code: 'removed', message: 'no longer a member' } });
    await assert.rejects(async () => {
      for await (const _ of sub);
    }, { code: 'removed' });
    assert.equal(sub.state, 'failed');
  });

  test('a second consumer is a mistake', () => {
    const sub = rejoin.subscribe('room:1', { onMessage: () => {} });
    assert.throws(() => sub[Symbol.asyncIterator](), TypeError);
  });
});

describe('refusals', () => {
  test('one that will not change ends this subscription and no other', async () => {
    peer.intercept = ({ req, connect }, send) => {
      if (!connect) return false;
      send({ req: req!, connected: { user: '42', ping_ms: 25_000 } });
      send({ req: req!, error: { code: 'forbidden', message: 'no', channel: 'room:1' } });
      send({ req: req!, subscribed: { channel: 'room:2', cursor: at(0) } });
      send({ live: { channel: 'room:2', cursor: at(0) } });
      return true;
    };
    const errors = new Collector<RejoinError>();
    const one = rejoin.subscribe('room:1', { onMessage: () => {}, onError: errors.add });
    const two = rejoin.subscribe('room:2', { onMessage: () => {} });
    rejoin.connect();
    await reaches(rejoin, 'live');
    assert.equal((await errors.atLeast(1))[0]!.code, 'forbidden');
    assert.deepEqual([one.state, two.state], ['failed', 'live']);
  });

  test('one that may change is asked again', async () => {
    let refusals = 0;
    peer.intercept = ({ req, subscribe }, send) => {
      if (!subscribe || refusals++ >= 2) return false;
      send({ req: req!, error: { code: 'rate_limited', retryable: true, retry_after_ms: 1, channel: 'room:1' } });
      return true;
    };
    rejoin.connect();
    await reaches(rejoin, 'connected');
    const sub = rejoin.subscribe('room:1', { onMessage: () => {} });
    (sub as unknown as { backoff: { limits(a: number, b: number): void } }).backoff.limits(1, 1);
    await reaches(rejoin, 'live');
    assert.equal(refusals, 3);
  });
});

test('close stops listening, and the channel can be subscribed to again', async () => {
  const got = new Collector<unknown>();
  const sub = rejoin.subscribe('room:1', { onMessage: ({ data }) => got.add(data) });
  rejoin.connect();
  await reaches(rejoin, 'live');
  peer.publish('room:1', 1);
  await got.atLeast(1);
  sub.close();
  assert.equal(rejoin.state, 'connected');
  await peer.until(() => peer.heardOf('unsubscribe').length === 1);
  peer.publish('room:1', 2);
  rejoin.subscribe('room:1', { onMessage: ({ data }) => got.add(data) });
  assert.deepEqual(await got.atLeast(2), [1, 2], 'from its cursor');
});

test('signals, receipts and unread counts', async () => {
  const signals = new Collector<unknown>();
  const unread = new Collector<number>();
  const receipts = new Collector<unknown>();
  rejoin.on('receipt', receipts.add);
  const sub = rejoin.subscribe('room:1', { onMessage: () => {}, onSignal: signals.add, onUnread: unread.add });
  rejoin.connect();
  await reaches(rejoin, 'live');
  peer.broadcast({ signal: { channel: 'room:1', type: 'typing', sender: '7', data: true } });
  assert.deepEqual(await signals.atLeast(1), [{ channel: 'room:1', type: 'typing', sender: '7', data: true }]);
  peer.publish('room:1', 'theirs', { sender: '7' });
  peer.publish('room:1', 'mine', { sender: '42' });
  peer.broadcast({ receipt: { channel: 'room:1', device: 'phone', read: at(1), unread: 5 } });
  await unread.atLeast(2);
  sub.ack({ read: at(2) });
  await peer.until(() => peer.heardOf('ack').length === 1);
  assert.deepEqual(unread.items, [1, 5, 0]);
  assert.deepEqual(receipts.items, [{ channel: 'room:1', device: 'phone', read: at(1), unread: 5 }]);
  assert.deepEqual(peer.heardOf('ack'), [{ channel: 'room:1', read: at(2) }]);
  rejoin.signal('room:1', true, { type: 'typing' });
  await peer.until(() => peer.heardOf('signal').length === 1);
  assert.deepEqual(peer.heardOf('signal'), [{ channel: 'room:1', type: 'typing', data: true }]);
});

test('an ack made offline is said on return, together with the later ones', async () => {
  rejoin.ack('room:1', { delivered: at(1) });
  rejoin.ack('room:1', { read: at(2) });
  rejoin.connect();
  await peer.until(() => peer.heardOf('ack').length === 1);
  assert.deepEqual(peer.heardOf('ack'), [{ channel: 'room:1', delivered: at(1), read: at(2) }]);
});
