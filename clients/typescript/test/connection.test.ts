// How the client connects, stays connected and comes back, against a peer that
// does on command what an edge does in trouble.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import type { AddressInfo } from 'node:net';
import { MemoryStorage, RejoinError, type Rejoin, type StateEvent } from '../src/node.js';
import { Collector, client, deferred, reaches, unsigned } from './helpers.js';
import { Peer } from './peer.js';

let peer: Peer;
let rejoin: Rejoin | undefined;
beforeEach(async () => {
  peer = await Peer.start();
});
afterEach(async () => {
  await rejoin?.close();
  await peer.stop();
});

/** All states, in order. */
function states(of: Rejoin): Collector<string> {
  const collector = new Collector<string>();
  of.on('state', (event: StateEvent) => collector.add(event.state));
  return collector;
}

describe('connecting', () => {
  test('states: connecting, connected, catchingUp, live, each an event', async () => {
    rejoin = client({ url: peer.url });
    const seen = states(rejoin);
    const named = new Collector<string>();
    for (const name of ['connecting', 'connected', 'catchingUp', 'live'] as const) rejoin.on(name, () => named.add(name));
    peer.publish('room:1', 'before');
    rejoin.subscribe('room:1', { from: 'earliest', onMessage: () => {} });
    assert.equal(rejoin.state, 'closed');
    rejoin.connect();
    await reaches(rejoin, 'live');
    assert.deepEqual(seen.items, ['connecting', 'connected', 'catchingUp', 'live']);
    assert.deepEqual(named.items, seen.items);
    assert.equal(rejoin.edge, 'peer');
    assert.equal(rejoin.transport, 'websocket');
  });

  test('connect names token, device and all subscriptions in one frame', async () => {
    const token = unsigned({ sub: '42' });
    rejoin = client({ url: `${peer.url}/`, token, device: 'phone' });
    rejoin.subscribe('room:1');
    rejoin.subscribe('room:2', { from: 'earliest', maxCatchup: 9 });
    rejoin.connect();
    await peer.until(() => peer.heard.length > 0);
    const subscriptions = [
      { channel: 'room:1', from: 'tail' },
      { channel: 'room:2', from: 'earliest', max_catchup: 9 },
    ];
    assert.deepEqual(peer.heard[0], { req: 1, connect: { token, device: 'phone', subscriptions } });
  });

  test('a device is named once and for ever', async () => {
    const storage = new MemoryStorage();
    for (let i = 0; i < 2; i++) {
      rejoin = client({ url: peer.url, storage });
      rejoin.connect();
      await reaches(rejoin, 'connected');
      await rejoin.close();
    }
    const [first, second] = peer.heardOf('connect');
    assert.match(first!.device!, /^[0-9a-f-]{36}$/);
    assert.equal(first!.device, second!.device);
  });

  test('refuses what the edge would refuse, before it harms the rest', () => {
    rejoin = client({ url: peer.url });
    assert.throws(() => rejoin!.subscribe('no colon'), { code: 'bad_channel' });
    assert.throws(() => rejoin!.subscribe('room:1', { from: 'yesterday' }), { code: 'bad_cursor' });
    rejoin.subscribe('room:1');
    assert.throws(() => rejoin!.subscribe('room:1'), { code: 'already_subscribed' });
  });

  test('does not use what belongs to another user', async () => {
    rejoin = client({ url: peer.url, user: '7' });
    rejoin.connect();
    const { error } = await rejoin.once('closed');
    assert.equal(error?.code, 'user_changed');
    assert.deepEqual(peer.heardOf('publish'), []);
  });
});

describe('coming back', () => {
  test('after a cut: offline, then live again from the cursor', async () => {
    rejoin = client({ url: peer.url });
    const got = new Collector<unknown>();
    rejoin.subscribe('room:1', { onMessage: (message) => got.add(message.data) });
    rejoin.connect();
    await reaches(rejoin, 'live');
    peer.publish('room:1', 1);
    await got.atLeast(1);
    const offline = rejoin.once('offline');
    peer.cut();
    peer.publish('room:1', 2);
    const { retryInMs, error } = await offline;
    assert.ok(retryInMs !== undefined && retryInMs <= 20, `${retryInMs}`);
    assert.ok(error instanceof RejoinError);
    await reaches(rejoin, 'live');
    peer.publish('room:1', 3);
    assert.deepEqual(await got.atLeast(3), [1, 2, 3]);
  });

  test('keeps trying while no edge is there', async () => {
    const port = Number(new URL(peer.url).port);
    await peer.stop();
    rejoin = client({ url: `http://127.0.0.1:${port}` });
    const offline = new Collector<StateEvent>();
    rejoin.on('offline', offline.add);
    rejoin.connect();
    await offline.atLeast(4);
    peer = await Peer.start(port);
    await reaches(rejoin, 'connected');
  });

  for (const code of [1012, 4000, 4001, 4006, 4499]) {
    test(`after close code ${code}`, async () => {
      rejoin = client({ url: peer.url });
      rejoin.connect();
      await reaches(rejoin, 'connected');
      peer.close(code, 'reason');
      await reaches(rejoin, 'offline');
      await reaches(rejoin, 'connected');
      assert.equal(peer.connections, 2);
    });
  }

  for (const code of [4500, 4501, 4502, 4506, 4999]) {
    test(`not after close code ${code}`, async () => {
      rejoin = client({ url: peer.url });
      rejoin.connect();
      await reaches(rejoin, 'connected');
      peer.close(code, 'reason');
      const { error } = await rejoin.once('closed');
      assert.equal(error?.code, 'reason');
      rejoin.wake();
      assert.equal(rejoin.state, 'closed');
      rejoin.connect();
      await reaches(rejoin, 'connected');
      assert.equal(peer.connections, 2, 'only when asked');
    });
  }

  test('goaway: waits as long as the edge says, not longer and not shorter', async () => {
    rejoin = client({ url: peer.url, retryMinMs: 10_000, retryMaxMs: 10_000 });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    peer.broadcast({ goaway: { reason: 'drain', retry_after_ms: 300 } });
    peer.close(4000, 'draining');
    const begin = performance.now();
    const { retryInMs } = await rejoin.once('offline');
    assert.ok(retryInMs! > 200 && retryInMs! <= 300, `${retryInMs}`);
    await reaches(rejoin, 'connected');
    assert.ok(performance.now() - begin < 3_000);
  });

  test('goaway without a close: leaves by itself', async () => {
    rejoin = client({ url: peer.url });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    peer.broadcast({ goaway: { reason: 'lifetime', retry_after_ms: 30 } });
    await peer.until(() => peer.connections === 2);
    await reaches(rejoin, 'connected');
  });

  test('takes the delays that the edge announces', async () => {
    peer.intercept = ({ req, connect }, send) => {
      if (connect) send({ req: req!, connected: { user: '42', ping_ms: 25_000, retry: { min_ms: 5, max_ms: 5 } } });
      return true;
    };
    rejoin = client({ url: peer.url, retryMinMs: 60_000, retryMaxMs: 60_000 });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    peer.cut();
    const { retryInMs } = await rejoin.once('offline');
    assert.ok(retryInMs! <= 5, `${retryInMs}`);
  });

  test('a connection that dies before its first frame: the next one asks for everything', async () => {
    // The storage answers only after the connection is gone.
    const storage = new MemoryStorage();
    const gate = deferred();
    const get = storage.get.bind(storage);
    storage.get = async (key) => {
      if (key.includes('/cursor/')) await gate.promise;
      return get(key);
    };
    rejoin = client({ url: peer.url, storage });
    rejoin.subscribe('room:1', { onMessage: () => {} });
    rejoin.connect();
    await peer.until(() => peer.connections === 1);
    peer.cut();
    await reaches(rejoin, 'offline');
    gate.resolve();
    await reaches(rejoin, 'live');
  });

  test('wake: at once, instead of after the delay', async () => {
    rejoin = client({ url: peer.url, retryMinMs: 60_000, retryMaxMs: 60_000, random: () => 1 });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    peer.cut();
    await reaches(rejoin, 'offline');
    rejoin.wake();
    await reaches(rejoin, 'connected');
  });

  test('a browser going offline and online again', async () => {
    rejoin = client({ url: peer.url, retryMinMs: 60_000, retryMaxMs: 60_000, random: () => 1 });
    const target = new EventTarget();
    const global = globalThis as unknown as Record<string, unknown>;
    global['addEventListener'] = target.addEventListener.bind(target);
    global['removeEventListener'] = target.removeEventListener.bind(target);
    after(() => {
      delete global['addEventListener'];
      delete global['removeEventListener'];
    });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    target.dispatchEvent(new Event('offline'));
    assert.equal(rejoin.state, 'offline');
    target.dispatchEvent(new Event('online'));
    await reaches(rejoin, 'connected');
    await rejoin.close();
    target.dispatchEvent(new Event('online'));
    assert.equal(rejoin.state, 'closed');
  });

  test('a page that is shown again, or resumed: at once, instead of after the delay', async (context) => {
    const page = Object.assign(new EventTarget(), { visibilityState: 'hidden' });
    const global = globalThis as { document?: unknown };
    global.document = page;
    context.after(() => delete global.document);
    rejoin = client({ url: peer.url, retryMinMs: 60_000, retryMaxMs: 60_000, random: () => 1 });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    for (const name of ['visibilitychange', 'resume']) {
      peer.cut();
      await reaches(rejoin, 'offline');
      page.visibilityState = 'hidden';
      page.dispatchEvent(new Event('visibilitychange'));
      assert.equal(rejoin.state, 'offline', 'hidden is no reason');
      page.visibilityState = 'visible';
      page.dispatchEvent(new Event(name));
      await reaches(rejoin, 'connected');
    }
  });

  test('woken after more than a ping interval of silence: does not trust the connection', async () => {
    let now = 1_700_000_000_000;
    rejoin = client({ url: peer.url, now: () => now });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    now += peer.pingMs;
    rejoin.wake();
    assert.equal(rejoin.state, 'connected', 'a ping may still be on its way');
    now += peer.pingMs / 2;
    rejoin.wake();
    assert.equal(rejoin.state, 'connecting');
    await peer.until(() => peer.connections === 2);
    await reaches(rejoin, 'connected');
  });

  test('half-open: nothing for two ping intervals ends the connection', async () => {
    peer.pingMs = 50;
    rejoin = client({ url: peer.url });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    const { error } = await rejoin.once('offline');
    assert.equal(error?.code, 'silent');
    await peer.until(() => peer.connections === 2);
  });

  test('pings keep it, and are answered', async () => {
    peer.pingMs = 100;
    rejoin = client({ url: peer.url });
    const seen = states(rejoin);
    rejoin.connect();
    await reaches(rejoin, 'connected');
    const timer = setInterval(() => peer.broadcast({ ping: {} }), 50);
    await peer.until(() => peer.heardOf('pong').length >= 10);
    clearInterval(timer);
    assert.deepEqual(seen.items, ['connecting', 'connected']);
  });

  test('an address that takes connections and never answers', async () => {
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as AddressInfo;
    rejoin = client({ url: `http://127.0.0.1:${port}`, dialTimeoutMs: 50 });
    rejoin.connect();
    const { error } = await rejoin.once('offline');
    assert.equal(error?.code, 'timeout');
    await rejoin.close();
    silent.close();
  });
});

describe('tokens', () => {
  test('one that is refused is replaced once, then the client gives up', async () => {
    peer.intercept = ({ req, connect }, send, socket) => {
      if (!connect) return false;
      send({ req: req!, error: { code: 'unauthorized', message: 'expired' } });
      socket.close(4501, 'unauthorized');
      return true;
    };
    const reasons: string[] = [];
    rejoin = client({ url: peer.url, getToken: (reason) => (reasons.push(reason), unsigned({ sub: '42' })) });
    rejoin.connect();
    const { error } = await rejoin.once('closed');
    assert.equal(error?.code, 'unauthorized');
    assert.equal(peer.connections, 2);
    assert.deepEqual(reasons, ['connect', 'rejected']);
  });

  test('an expired one is not even tried', async () => {
    const token = unsigned({ sub: '42', exp: Date.now() / 1_000 - 60 });
    const fresh = unsigned({ sub: '42', exp: Date.now() / 1_000 + 3_600 });
    rejoin = client({ url: peer.url, token, getToken: async () => fresh });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    assert.equal(peer.heardOf('connect')[0]!.token, fresh);
  });

  test('a new one before it expires, on the same connection', async () => {
    let made = 0;
    rejoin = client({ url: peer.url, getToken: () => unsigned({ sub: '42', n: ++made }) });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    peer.broadcast({ token_expiring: { expires_in_ms: 10_000 } });
    await peer.until(() => peer.heardOf('refresh').length === 1);
    assert.notEqual(peer.heardOf('refresh')[0]!.token, peer.heardOf('connect')[0]!.token);
    assert.equal(peer.connections, 1);
  });

  test('a new one by its own clock, should the edge not warn', async () => {
    peer.intercept = ({ req, connect }, send) => {
      if (!connect) return false;
      send({ req: req!, connected: { user: '42', expires_ms: Date.now() + 200 } });
      return true;
    };
    rejoin = client({ url: peer.url, getToken: async () => unsigned({ sub: '42' }) });
    rejoin.connect();
    await peer.until(() => peer.heardOf('refresh').length === 1);
  });

  test('a refresh that fails is tried again before the connection ends', async (context) => {
    const { setTimeout: real } = globalThis;
    const hurried = (action: () => void, delayMs: number) => real(action, delayMs === 5_000 ? 1 : delayMs);
    context.mock.method(globalThis, 'setTimeout', hurried as typeof setTimeout);
    let calls = 0;
    const getToken = async () => {
      if (++calls === 2) throw new Error('no network');
      return unsigned({ sub: '42', n: calls });
    };
    rejoin = client({ url: peer.url, getToken });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    peer.broadcast({ token_expiring: { expires_in_ms: 10_000 } });
    await peer.until(() => peer.heardOf('refresh').length === 1);
    assert.equal(calls, 3);
    assert.equal(peer.connections, 1);
  });

  test('after 4007 it comes back with a new one', async () => {
    let made = 0;
    rejoin = client({ url: peer.url, getToken: () => unsigned({ sub: '42', n: ++made }) });
    rejoin.connect();
    await reaches(rejoin, 'connected');
    peer.close(4007, 'token_expired');
    await peer.until(() => peer.heardOf('connect').length === 2);
    const [first, second] = peer.heardOf('connect');
    assert.notEqual(first!.token, second!.token);
  });

  test('getToken that fails is called again, and one that says no ends it', async () => {
    let calls = 0;
    const getToken = async () => {
      calls++;
      if (calls < 3) throw new Error('no network');
      throw new RejoinError('unauthorized', 'logged out');
    };
    rejoin = client({ url: peer.url, getToken, user: '42' });
    const offline = new Collector<StateEvent>();
    rejoin.on('offline', offline.add);
    rejoin.connect();
    const { error } = await rejoin.once('closed');
    assert.equal(error?.code, 'unauthorized');
    assert.equal(offline.items[0]!.error?.code, 'no_token');
    assert.equal(peer.connections, 0);
  });
});
