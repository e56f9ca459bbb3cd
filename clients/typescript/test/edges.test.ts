// The client against real edges, NATS and Postgres, behind a proxy without
// affinity: what the README promises.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { FileStorage, MemoryStorage, Rejoin, type Message, type ReceiptEvent, type RejoinError, type RejoinOptions, type Signal, type Subscription, type WebSocketLike } from '../src/node.js';
import { Fleet, room, user } from './fleet.js';
import { Collector, eventually, reaches } from './helpers.js';

let fleet: Fleet;
const open: Rejoin[] = [];
before(async () => {
  fleet = await Fleet.start();
}, { timeout: 600_000 });
after(() => fleet?.stop());
afterEach(async () => {
  for (const rejoin of open.splice(0)) await rejoin.close();
});

function client(name: string, options: Partial<RejoinOptions> = {}): Rejoin {
  const rejoin = new Rejoin({ url: fleet.url, getToken: () => fleet.token(name), storage: new MemoryStorage(), retryMinMs: 50, retryMaxMs: 500, ...options });
  open.push(rejoin);
  rejoin.connect();
  return rejoin;
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

test('a conversation: two users, on whatever edge, each message once and in order', async () => {
  const channel = room();
  const [patient, doctor] = [client(user()), client(user())];
  const [atPatient, atDoctor] = [new Collector<Message>(), new Collector<Message>()];
  patient.subscribe(channel, { onMessage: atPatient.add });
  doctor.subscribe(channel, { onMessage: atDoctor.add });
  await Promise.all([reaches(patient, 'live'), reaches(doctor, 'live')]);
  const sent = [];
  for (const i of numbers(10)) sent.push(await (i % 2 ? doctor : patient).publish(channel, { text: `${i}` }, { type: 'chat' }));
  const [one, two] = [await atPatient.atLeast(10), await atDoctor.atLeast(10)];
  assert.deepEqual(one.map((it) => [it.id, it.cursor]), sent.map((it) => [it.id, it.cursor]));
  assert.deepEqual(one, two);
  assert.deepEqual([one[0]!.sender, one[0]!.type, one[0]!.data], [patient.user, 'chat', { text: '0' }]);
});

test('a reload rejoins: what was missed, then live, from a file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'rejoin-'));
  const path = join(folder, 'state.json');
  const channel = room();
  const name = user();
  const first = client(name, { storage: new FileStorage(path) });
  const before = new Collector<unknown>();
  first.subscribe(channel, { onMessage: ({ data }) => before.add(data) });
  await reaches(first, 'live');
  await fleet.publish(channel, 0);
  await before.atLeast(1);
  await first.close();
  for (const i of [1, 2, 3]) await fleet.publish(channel, i);

  const second = client(name, { storage: new FileStorage(path) });
  const got = new Collector<[unknown, boolean]>();
  second.subscribe(channel, { onMessage: ({ data, replayed }) => got.add([data, replayed]) });
  await reaches(second, 'live');
  await fleet.publish(channel, 4);
  assert.deepEqual(await got.atLeast(4), [[1, true], [2, true], [3, true], [4, false]]);
  await second.close();
  await rm(folder, { recursive: true });
});

test('from: earliest, last:<n>, tail, and history', async () => {
  const channel = room();
  const cursors = [];
  for (const i of numbers(5)) cursors.push(await fleet.publish(channel, i));
  const starts = { earliest: [0, 1, 2, 3, 4], 'last:2': [3, 4], tail: [], [cursors[1]!]: [2, 3, 4] };
  for (const [from, expected] of Object.entries(starts)) {
    const rejoin = client(user());
    const got = new Collector<unknown>();
    rejoin.subscribe(channel, { from, onMessage: ({ data }) => got.add(data) });
    await reaches(rejoin, 'live');
    assert.deepEqual(got.items, expected, from);
  }
  const reader = client(user());
  const page = await reader.history<number>(channel, { from: 'earliest', limit: 3 });
  assert.deepEqual([page.messages.map(({ data }) => data), page.live, page.cursor], [[0, 1, 2], false, cursors[2]]);
  const rest = await reader.history<number>(channel, { from: page.cursor });
  assert.deepEqual([rest.messages.map(({ data }) => data), rest.live], [[3, 4], true]);
});

test('a cursor that is ahead of everything gets a reset, and goes on', async () => {
  const channel = room();
  const cursor = await fleet.publish(channel, 'first');
  const rejoin = client(user());
  const resets: string[] = [];
  const got = new Collector<unknown>();
  rejoin.subscribe(channel, { from: `${cursor.split('-')[0]}-999999999`, onReset: ({ reason }) => resets.push(reason), onMessage: ({ data }) => got.add(data) });
  await reaches(rejoin, 'live');
  assert.deepEqual(resets, ['ahead']);
  await fleet.publish(channel, 'second');
  assert.deepEqual(await got.atLeast(1), ['second']);
});

test('what the token does not allow fails by itself', async () => {
  const rejoin = client(user(), { getToken: async () => fleet.token('limited', { subscribe: 'room:mine', publish: 'room:mine' }) });
  const theirs = rejoin.subscribe('room:theirs', { onMessage: () => {} });
  const mine = rejoin.subscribe('room:mine', { onMessage: () => {} });
  await reaches(rejoin, 'live');
  assert.deepEqual([theirs.state, mine.state], ['failed', 'live']);
  await assert.rejects(rejoin.publish('room:theirs', 1), { code: 'forbidden' });
  await rejoin.publish('room:mine', 1);
});

for (const transports of [['websocket'], ['sse'], ['poll']] as const) {
  test(`over ${transports[0]}: the inbox and the rooms, without naming them, from where they were left`, async () => {
    const [name, mine] = [user(), room()];
    await fleet.join(mine, name);
    const storage = new MemoryStorage();
    const got = new Collector<unknown>();
    const onMessage = ({ channel, data }: Message) => got.add([channel, data]);
    const options = { transports, storage, inbox: { onMessage }, rooms: { onMessage }, getToken: () => fleet.token(name, { subscribe: 'topic:x', publish: 'topic:x' }) };
    const rejoin = client(name, options);
    const found = new Collector<Subscription>();
    rejoin.on('subscription', found.add);
    const subs = await found.atLeast(2);
    assert.deepEqual(subs.map(({ channel }) => channel).sort(), [mine, `user:${name}`].sort());
    for (const sub of subs) await eventually(() => sub.state === 'live');
    await fleet.publish(mine, 1);
    await fleet.publish(`user:${name}`, 2);
    await got.atLeast(2);
    await eventually(() => subs.every(({ cursor }) => cursor !== undefined));
    await rejoin.close();

    await fleet.publish(mine, 3);
    await fleet.publish(`user:${name}`, 4);
    client(name, options);
    const all = [...(await got.atLeast(4))].sort();
    assert.deepEqual(all, [[mine, 1], [mine, 3], [`user:${name}`, 2], [`user:${name}`, 4]]);
  });
}

test('an id published again, over another connection, is the same message', async () => {
  const channel = room();
  const name = user();
  const first = await client(name).publish(channel, 1, { id: 'the-same' });
  const again = await client(name).publish(channel, 1, { id: 'the-same' });
  assert.deepEqual([again.cursor, again.duplicate], [first.cursor, true]);
});

test('signals reach those who listen', async () => {
  const channel = room();
  const [one, two] = [client(user()), client(user())];
  const signals = new Collector<Signal>();
  one.subscribe(channel, { onMessage: () => {}, onSignal: signals.add });
  two.subscribe(channel, { onMessage: () => {} });
  await Promise.all([reaches(one, 'live'), reaches(two, 'live')]);
  two.signal(channel, { typing: true }, { type: 'typing' });
  const [signal] = await signals.atLeast(1);
  assert.deepEqual(signal, { channel, type: 'typing', sender: two.user, data: { typing: true } });
});

test('a read position is heard by the user’s other device, with the unread count', async () => {
  const channel = room();
  const name = user();
  const [phone, desk] = [client(name, { device: 'phone' }), client(name, { device: 'desk' })];
  const subs = [phone, desk].map((it) => it.subscribe(channel, { onMessage: () => {} }));
  await Promise.all([reaches(phone, 'live'), reaches(desk, 'live')]);
  await fleet.publish(channel, 1);
  const cursor = await fleet.publish(channel, 2);
  await eventually(() => subs.every((sub) => sub.unread === 2 && sub.cursor === cursor));
  const receipts = new Collector<ReceiptEvent>();
  desk.on('receipt', receipts.add);
  subs[0]!.ack();
  await eventually(() => receipts.items.some((it) => it.channel === channel && it.device === 'phone' && it.read === cursor && it.unread === 0));
  await eventually(() => subs.every(({ unread }) => unread === 0));
});

describe('trouble', () => {
  /** One publishes and one reads, for as long as `during` takes. */
  async function conversation(during: (got: Collector<unknown>) => Promise<void>, options: Partial<RejoinOptions> = {}): Promise<void> {
    const channel = room();
    const [writer, reader] = [client(user(), options), client(user(), options)];
    const got = new Collector<unknown>();
    const resets: unknown[] = [];
    const sub = reader.subscribe(channel, { onMessage: ({ data }) => got.add(data), onReset: (reset) => resets.push(reset) });
    await reaches(reader, 'live');
    let over = false;
    let total = 0;
    const publishing = (async () => {
      while (!over) {
        await writer.publish(channel, total++);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
    await during(got).finally(() => (over = true));
    await publishing;
    assert.deepEqual(await got.atLeast(total), numbers(total));
    assert.deepEqual([resets, sub.counts.gaps], [[], 0]);
  }

  const fleetIs = (test: (fleet: { rolling: boolean; up: boolean }) => boolean) =>
    eventually(async () => {
      const now = await fleet.fleet();
      return test({ rolling: now.rolling, up: now.edges.every(({ state }) => state === 'up') });
    });

  for (const transport of ['websocket', 'sse', 'poll'] as const) {
    test(`over ${transport}, both edges are killed, one after the other: all, once, in order`, { timeout: 60_000 }, () =>
      conversation(async (got) => {
        for (const edge of ['edge-1', 'edge-2']) {
          await got.atLeast(got.items.length + 20);
          await fleet.control(`edges/${edge}/kill`);
          await fleetIs(({ up }) => !up);
          await fleetIs(({ up }) => up);
        }
        await got.atLeast(got.items.length + 20);
      }, { transports: [transport] }));

    test(`over ${transport}, all edges are rolled: all, once, in order`, { timeout: 90_000 }, () =>
      conversation(async (got) => {
        await fleet.control('edges/roll');
        await fleetIs(({ rolling }) => rolling);
        await fleetIs(({ rolling, up }) => !rolling && up);
        await got.atLeast(got.items.length + 20);
      }, { transports: [transport] }));
  }

  test('NATS is restarted: publishes wait, all, once, in order', { timeout: 60_000 }, () =>
    conversation(async (got) => {
      await got.atLeast(20);
      await fleet.control('nats/restart');
      await eventually(async () => (await fleet.fleet()).nats !== 'up');
      await eventually(async () => (await fleet.fleet()).nats === 'up');
      await got.atLeast(got.items.length + 20);
    }));
});

describe('networks that block WebSocket', () => {
  /** What a proxy that knows no WebSocket makes of one, while `blocked`. */
  let blocked = true;
  class Blocked {
    onopen = null;
    onmessage = null;
    onclose: ((event: { code: number; reason: string }) => void) | null = null;
    onerror = null;
    constructor(url: string, protocols: string[]) {
      if (!blocked) return new WebSocket(url, protocols) as unknown as this;
      setTimeout(() => this.onclose?.({ code: 1006, reason: '' }), 5);
    }
    send(): void {}
    close(): void {}
  }
  const webSocket = Blocked as unknown as WebSocketLike;
  /** As a proxy that ends or holds back event streams. */
  const without = (path: string, how: 'refuses' | 'holds back'): typeof fetch => (input, init) => {
    if (!String(input).includes(path)) return fetch(input, init);
    if (how === 'refuses') return Promise.reject(new TypeError('blocked'));
    return new Promise((_, reject) => init!.signal!.addEventListener('abort', () => reject(new Error('aborted'))));
  };

  for (const [name, transport, options] of [
    ['server-sent events', 'sse', {}],
    ['long-poll, where those are refused', 'poll', { fetch: without('/v1/events', 'refuses') }],
    ['long-poll, where those are held back', 'poll', { fetch: without('/v1/events', 'holds back'), dialTimeoutMs: 300 }],
  ] as const) {
    test(`falls back to ${name}: the same, and on return to WebSocket nothing is lost or doubled`, { timeout: 30_000 }, async () => {
      blocked = true;
      const channel = room();
      const name = user();
      const rejoin = client(name, { webSocket, upgradeMs: 1_000, ...options });
      const states = new Collector<string>();
      const got = new Collector<unknown>();
      const sub = rejoin.subscribe(channel, { onMessage: ({ data }) => got.add(data) });
      await reaches(rejoin, 'live');
      assert.equal(rejoin.transport, transport);
      assert.equal(rejoin.user, name);

      rejoin.on('state', ({ state }) => states.add(state));
      let total = 0;
      for (; total < 10; total++) await rejoin.publish(channel, total);
      await got.atLeast(total);
      assert.deepEqual(states.items, [], 'a message is no reason to change state');
      // Another channel, while messages come.
      const second = room();
      const other = new Collector<unknown>();
      rejoin.subscribe(second, { onMessage: ({ data }) => other.add(data) });
      for (; total < 15; total++) await fleet.publish(channel, total);
      await reaches(rejoin, 'live');
      await fleet.publish(second, 'second');
      await other.atLeast(1);
      const duplicate = await rejoin.publish(channel, 'again', { id: 'again' }).then(() => client(name).publish(channel, 'again', { id: 'again' }));
      assert.equal(duplicate.duplicate, true);

      blocked = false;
      while ((rejoin.transport as string) !== 'websocket') await fleet.publish(channel, total++);
      await reaches(rejoin, 'live');
      await fleet.publish(channel, total++);
      await got.atLeast(total + 1);
      assert.deepEqual(got.items.filter((data) => data !== 'again'), numbers(total));
      assert.equal(sub.counts.gaps, 0);
    });
  }

  for (const transport of ['sse', 'poll'] as const) {
    test(`over ${transport}: what is refused, reset, acknowledged and signalled`, { timeout: 30_000 }, async () => {
      const [channel, name] = [room(), user()];
      const rights = { subscribe: `${channel},room:mine`, publish: channel };
      const options = { transports: [transport], getToken: () => fleet.token(name, rights) };
      const rejoin = client(name, { ...options, device: 'phone' });
      const first = await fleet.publish(channel, 1);
      const errors = new Collector<RejoinError>();
      const resets: string[] = [];
      const signals = new Collector<unknown>();
      const theirs = rejoin.subscribe('room:theirs', { onMessage: () => {}, onError: errors.add });
      const sub = rejoin.subscribe(channel, {
        from: `${first.split('-')[0]}-999999999`,
        onMessage: () => {},
        onReset: ({ reason }) => resets.push(reason),
        onSignal: ({ data }) => signals.add(data),
      });
      assert.equal((await errors.atLeast(1))[0]!.code, 'forbidden');
      await reaches(rejoin, 'live');
      assert.deepEqual([theirs.state, sub.state, resets], ['failed', 'live', ['ahead']]);
      await assert.rejects(rejoin.publish('room:theirs', 1), { code: 'forbidden' });

      const desk = client(name, { device: 'desk', getToken: options.getToken });
      const atDesk = new Collector<unknown>();
      desk.subscribe(channel, { onMessage: () => {}, onSignal: ({ data }) => atDesk.add(data) });
      await reaches(desk, 'live');
      const receipts = new Collector<ReceiptEvent>();
      desk.on('receipt', receipts.add);
      const read = await fleet.publish(channel, 2);
      await eventually(() => sub.cursor === read);
      sub.ack();
      await eventually(() => receipts.items.some((it) => it.device === 'phone' && it.read === read));
      rejoin.signal(channel, 'from the fallback');
      // At most once, and between two polls nobody listens.
      while (!signals.items.includes('to the fallback')) {
        desk.signal(channel, 'to the fallback');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await eventually(() => atDesk.items.includes('from the fallback'));
    });
  }
});
