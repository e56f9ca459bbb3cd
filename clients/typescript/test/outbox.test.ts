// Publishing: stored first, sent in order, once.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { MemoryStorage, type OutboxEntry, type Rejoin, type Storage } from '../src/node.js';
import { Collector, client, eventually, reaches } from './helpers.js';
import { at, Peer } from './peer.js';

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

const stored = async (storage: Storage) =>
  Promise.all((await storage.keys('rejoin/42/')).filter((key) => key.includes('/outbox/')).sort().map(async (key) => JSON.parse((await storage.get(key))!) as OutboxEntry));

test('the promise resolves with id and cursor once it is stored', async () => {
  rejoin.connect();
  const states = new Collector<string>();
  rejoin.on('outbox', ({ state }) => states.add(state));
  const result = await rejoin.publish('room:1', { text: 'hi' }, { type: 'chat' });
  assert.match(result.id, /^[0-9a-f-]{36}$/);
  assert.deepEqual(result, { id: result.id, cursor: at(1), duplicate: false });
  assert.deepEqual(states.items, ['pending', 'sent']);
  assert.deepEqual(rejoin.pending, []);
  assert.deepEqual(peer.heardOf('publish'), [{ id: result.id, channel: 'room:1', type: 'chat', data: { text: 'hi' } }]);
});

test('made offline, it is stored, shown as pending, and sent in order on return', async () => {
  const storage = new MemoryStorage();
  rejoin = client({ url: peer.url, storage });
  const results = ['a', 'b', 'c'].map((data) => rejoin.publish('room:1', data));
  await eventually(async () => (await stored(storage)).length === 3);
  assert.deepEqual(rejoin.pending.map(({ data, state }) => [data, state]), [['a', 'pending'], ['b', 'pending'], ['c', 'pending']]);
  rejoin.connect();
  assert.deepEqual((await Promise.all(results)).map(({ cursor }) => cursor), [at(1), at(2), at(3)]);
  assert.deepEqual(peer.log.map(({ data }) => data), ['a', 'b', 'c']);
  assert.deepEqual(await stored(storage), []);
});

test('survives a reload, under its id, ahead of what comes later', async () => {
  const storage = new MemoryStorage();
  rejoin = client({ url: peer.url, storage });
  void rejoin.publish('room:1', 'before', { id: 'the-id' });
  await eventually(async () => (await stored(storage)).length === 1);
  await rejoin.close();

  rejoin = client({ url: peer.url, storage });
  const shown = new Collector<OutboxEntry>();
  rejoin.on('outbox', shown.add);
  const later = rejoin.publish('room:1', 'after');
  rejoin.connect();
  await later;
  assert.deepEqual(peer.log.map(({ id, data }) => [id === 'the-id', data]), [[true, 'before'], [false, 'after']]);
  const states = (await shown.atLeast(4)).filter(({ id }) => id === 'the-id').map(({ state }) => state);
  assert.deepEqual(states, ['pending', 'sent']);
});

test('published again after a reload: one message, in its old place, and nothing of it is left behind', async () => {
  const storage = new MemoryStorage();
  rejoin = client({ url: peer.url, storage });
  for (const id of ['a', 'b']) void rejoin.publish('room:1', id, { id });
  await eventually(async () => (await stored(storage)).length === 2);
  await rejoin.close();

  rejoin = client({ url: peer.url, storage });
  const again = rejoin.publish('room:1', 'b', { id: 'b' });
  const later = rejoin.publish('room:1', 'c', { id: 'c' });
  rejoin.connect();
  assert.equal((await again).cursor, at(2));
  assert.equal((await later).cursor, at(3));
  assert.deepEqual(peer.log.map(({ id }) => id), ['a', 'b', 'c']);
  await eventually(async () => (await stored(storage)).length === 0);
});

test('an ack that was lost: sent again under the same id, once in the log', async () => {
  peer.intercept = ({ publish }, _, socket) => {
    if (!publish || peer.log.length > 0) return false;
    peer.publish('room:1', publish.data, { id: publish.id! });
    socket.terminate();
    return true;
  };
  rejoin.connect();
  const { duplicate, cursor } = await rejoin.publish('room:1', 'once');
  assert.deepEqual([duplicate, cursor], [true, at(1)]);
  assert.equal(peer.log.length, 1);
  const [first, second] = peer.heardOf('publish');
  assert.equal(first!.id, second!.id);
});

test('the same id twice is one message', async () => {
  rejoin.connect();
  const both = await Promise.all([rejoin.publish('room:1', 1, { id: 'x' }), rejoin.publish('room:1', 1, { id: 'x' })]);
  assert.deepEqual(both[0], both[1]);
  assert.equal(peer.heardOf('publish').length, 1);
});

test('what is sent is what it was when it was published', async () => {
  const data = { text: 'first' };
  const result = rejoin.publish('room:1', data);
  await Promise.resolve();
  data.text = 'changed';
  rejoin.connect();
  await result;
  assert.deepEqual(peer.log[0]!.data, { text: 'first' });
});

test('bytes travel as base64', async () => {
  rejoin.connect();
  await rejoin.publish('room:1', new Uint8Array([0, 255]));
  assert.equal(peer.heardOf('publish')[0]!.data_base64, 'AP8=');
});

describe('refusals', () => {
  test('one that may change is retried, and nothing of its channel overtakes it', async () => {
    let refusals = 0;
    peer.intercept = ({ req, publish }, send) => {
      if (publish?.data !== 'first' || refusals++ >= 1) return false;
      send({ req: req!, error: { code: 'unavailable', retryable: true, retry_after_ms: 10 } });
      return true;
    };
    rejoin = client({ url: peer.url, random: () => 0 });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    const results = [rejoin.publish('room:1', 'first'), rejoin.publish('room:1', 'second'), rejoin.publish('room:2', 'other')];
    await Promise.all(results);
    assert.deepEqual(peer.log.map(({ data }) => data), ['other', 'first', 'second']);
    assert.equal(refusals, 2);
  });

  test('one that will not change fails, is kept, and can be retried or forgotten', async () => {
    const storage = new MemoryStorage();
    rejoin = client({ url: peer.url, storage });
    let allowed = false;
    peer.intercept = ({ req, publish }, send) => {
      if (!publish || allowed || publish.data === 'fine') return false;
      send({ req: req!, error: { code: 'forbidden', message: 'not yours' } });
      return true;
    };
    rejoin.connect();
    await assert.rejects(rejoin.publish('room:1', 1, { id: 'one' }), { code: 'forbidden' });
    await assert.rejects(rejoin.publish('room:1', 2, { id: 'two' }), { code: 'forbidden' });
    await rejoin.publish('room:1', 'fine');
    assert.deepEqual(rejoin.pending.map(({ id, state, error }) => [id, state, error?.code]), [['one', 'failed', 'forbidden'], ['two', 'failed', 'forbidden']]);
    await rejoin.close();

    rejoin = client({ url: peer.url, storage });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    assert.deepEqual(rejoin.pending.map(({ state }) => state), ['failed', 'failed'], 'after a reload too');
    allowed = true;
    assert.equal(await rejoin.discard('two'), true);
    assert.equal((await rejoin.retry('one')).id, 'one');
    assert.equal(await rejoin.discard('one'), false);
    assert.deepEqual(await stored(storage), []);
  });

  test('longer than the edge takes: fails here, and the connection lives', async () => {
    rejoin.connect();
    await assert.rejects(rejoin.publish('room:1', 'x'.repeat(1_000)), { code: 'too_large' });
    await rejoin.publish('room:1', 'x'.repeat(900));
    assert.equal(peer.connections, 1);
  });

  test('what cannot be JSON, or a channel that is none', async () => {
    await assert.rejects(rejoin.publish('room:1', 1n), TypeError);
    await assert.rejects(rejoin.publish('room', 1), { code: 'bad_channel' });
    await assert.rejects(rejoin.publish('room:1', 1, { id: 'no spaces' }), { code: 'bad_request' });
    assert.deepEqual(rejoin.pending, []);
  });

  test('more than the outbox may hold', async () => {
    rejoin = client({ url: peer.url, outboxMax: 1 });
    void rejoin.publish('room:1', 1);
    await assert.rejects(rejoin.publish('room:1', 2), { code: 'outbox_full' });
  });
});

test('a storage that refuses is reported, and the message still sent', async () => {
  const storage = new MemoryStorage();
  storage.set = async () => {
    throw new Error('quota');
  };
  rejoin = client({ url: peer.url, storage, device: 'phone' });
  const errors = new Collector<{ code: string }>();
  rejoin.on('error', errors.add);
  rejoin.connect();
  await rejoin.publish('room:1', 1);
  assert.equal(errors.items[0]!.code, 'storage_failed');
});

test('many, while the connection breaks again and again: all, once, in order', async () => {
  rejoin.connect();
  let count = 0;
  peer.intercept = ({ publish }, _, socket) => {
    // Every third try dies, half of them after it was stored.
    if (!publish || ++count % 3 !== 0) return false;
    if (count % 2 === 0 && !peer.log.some(({ id }) => id === publish.id)) peer.publish('room:1', publish.data, { id: publish.id! });
    socket.terminate();
    return true;
  };
  const total = 40;
  await Promise.all(Array.from({ length: total }, (_, i) => rejoin.publish('room:1', i)));
  assert.deepEqual(peer.log.map(({ data }) => data), Array.from({ length: total }, (_, i) => i));
  assert.ok(peer.connections > 5, `${peer.connections}`);
});
