// The client in a real browser, on real edges: IndexedDB, Web Locks, reloads,
// tabs, a network that comes and goes or blocks WebSocket.

import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Chromium, chromium, serveClient, type Page } from './chromium.js';
import { Fleet, room, user } from './fleet.js';

/** So that one that hangs is named. */
const LIMIT = { timeout: 60_000 };

/** A service worker that listens, and tells its page what it was given. */
const WORKER = `
import { Rejoin } from '/index.js';
const { url, token, channel } = Object.fromEntries(new URL(location).searchParams);
const got = [];
const rejoin = new Rejoin({ url, token });
rejoin.subscribe(channel, { onMessage: ({ data }) => { got.push(data); } });
rejoin.connect();
addEventListener('message', ({ ports }) => ports[0].postMessage({ state: rejoin.state, got }));
`;

describe('in Chromium', { skip: chromium ? false : 'there is no Chromium here' }, () => {
  let fleet: Fleet;
  let browser: Chromium;
  let server: Server;
  let origin: string;
  before(async () => {
    ({ server, origin } = await serveClient({ '/worker.js': WORKER }));
    [fleet, browser] = await Promise.all([Fleet.start(), Chromium.start()]);
  }, { timeout: 600_000 });
  after(async () => {
    await Promise.all([browser?.stop(), fleet?.stop()]);
    server.closeAllConnections();
    server.close();
  });

  /** Starts the client in a page: `got` has what its handler was given. */
  async function start(page: Page, name: string, channel: string, options = {}): Promise<void> {
    const token = await fleet.token(name);
    const settings = JSON.stringify({ url: fleet.url, token, retryMinMs: 50, retryMaxMs: 500, ...options });
    await page.run(`
      const { Rejoin } = await import('/index.js');
      globalThis.got = [];
      globalThis.rejoin = new Rejoin(${settings});
      globalThis.sub = rejoin.subscribe('${channel}', { onMessage: ({ data }) => { got.push(data); } });
      globalThis.live = async () => { if (rejoin.state !== 'live') await rejoin.once('live'); };
      rejoin.connect();`);
  }

  async function open(name: string, channel: string, options = {}): Promise<Page> {
    const page = await browser.open(origin);
    await start(page, name, channel, options);
    await page.run('await live();');
    return page;
  }

  async function until(test: () => Promise<boolean>): Promise<void> {
    while (!(await test())) await new Promise((resolve) => setTimeout(resolve, 50));
  }

  const got = (page: Page, count: number) =>
    page.run<unknown[]>(`while (got.length < ${count}) await new Promise((resolve) => setTimeout(resolve, 10)); return got;`);

  test('a reload rejoins from IndexedDB: what was missed, once', LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const page = await open(name, channel);
    await fleet.publish(channel, 1);
    assert.deepEqual(await got(page, 1), [1]);
    await page.go('about:blank');
    await fleet.publish(channel, 2);
    await page.go(origin);
    await start(page, name, channel);
    await page.run('await live();');
    await fleet.publish(channel, 3);
    assert.deepEqual(await got(page, 2), [2, 3]);
    assert.match(await page.run<string>('return rejoin.connection ? sub.cursor : "";'), /^[0-9a-f]{16}-\d+$/);
    await page.close();
  });

  test('airplane mode: published meanwhile, sent on return, also after a reload', LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const page = await open(name, channel);
    const other = await open(user(), channel);
    await page.network(false);
    await page.run(`if (rejoin.state !== 'offline') await rejoin.once('offline');`);
    await fleet.publish(channel, 'theirs');
    await page.run(`
      for (const data of ['one', 'two']) rejoin.publish('${channel}', data);
      while (rejoin.pending.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
      // Stored, not only meant to be.
      const stored = () => rejoin.storage.keys('rejoin/').then((keys) => keys.filter((key) => key.includes('/outbox/')).length);
      while ((await stored()) < 2) await new Promise((resolve) => setTimeout(resolve, 10));`);
    // A reload needs the page itself, which a service worker would have.
    await page.network(true);
    await page.run('await rejoin.close();').catch(() => {});
    await page.reload();
    await start(page, name, channel);
    assert.deepEqual(await got(other, 3), ['theirs', 'one', 'two']);
    await page.run('while (rejoin.pending.length > 0) await new Promise((resolve) => setTimeout(resolve, 10));');
    await Promise.all([page.close(), other.close()]);
  });

  test('back from airplane mode it retries at once', LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const page = await open(name, channel, { retryMinMs: 60_000, retryMaxMs: 60_000 });
    await page.network(false);
    await page.run(`if (rejoin.state !== 'offline') await rejoin.once('offline');`);
    await fleet.publish(channel, 1);
    await page.network(true);
    assert.deepEqual(await got(page, 1), [1]);
    await page.close();
  });

  test('two tabs: each shows each message once; one that is closed leaves its outbox to the other', LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const [one, two] = [await open(name, channel), await open(name, channel)];
    for (const i of [1, 2, 3]) await fleet.publish(channel, i);
    assert.deepEqual([await got(one, 3), await got(two, 3)], [[1, 2, 3], [1, 2, 3]]);
    await one.network(false);
    await one.run(`
      if (rejoin.state !== 'offline') await rejoin.once('offline');
      rejoin.publish('${channel}', 'left behind');
      const stored = () => rejoin.storage.keys('rejoin/').then((keys) => keys.filter((key) => key.includes('/outbox/')).length);
      while ((await stored()) < 1) await new Promise((resolve) => setTimeout(resolve, 10));`);
    await one.close();
    // The other looks when it connects (and at pings, which are rarer), and
    // finds it as soon as the browser has let go of the closed tab's lock.
    await two.run(`
      while (got.length < 4) {
        rejoin.connection.networkLost();
        rejoin.wake();
        await live();
        await new Promise((resolve) => setTimeout(resolve, 100));
      }`);
    assert.deepEqual(await got(two, 4), [1, 2, 3, 'left behind']);
    // Reloaded, it takes its own place again: nothing comes twice.
    await two.reload();
    await start(two, name, channel);
    await two.run('await live();');
    await fleet.publish(channel, 4);
    assert.deepEqual(await got(two, 1), [4]);
    await two.close();
  });

  test('tabs that start together have one device', LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const own = await serveClient();
    const tabs = [await browser.open(own.origin), await browser.open(own.origin)];
    try {
      // Both have read that there is none before either goes on.
      const armed = `
        const { IndexedDbStorage } = await import('/index.js');
        const { get } = IndexedDbStorage.prototype;
        const go = new Promise((resolve) => (globalThis.go = resolve));
        IndexedDbStorage.prototype.get = async function (key) {
          const value = await get.call(this, key);
          if (key === 'rejoin/device' && value === undefined) {
            globalThis.waiting = true;
            await go;
          }
          return value;
        };`;
      for (const tab of tabs) {
        await tab.run(armed);
        await start(tab, name, channel);
        await tab.run('while (!globalThis.waiting) await new Promise((resolve) => setTimeout(resolve, 10));');
      }
      await Promise.all(tabs.map((tab) => tab.run('go(); await live();')));
      const devices = await Promise.all(tabs.map((tab) => tab.run('return rejoin.home.device;')));
      assert.equal(devices[0], devices[1]);
      assert.equal(await tabs[0]!.run(`return rejoin.storage.get('rejoin/device');`), devices[0]);
    } finally {
      await Promise.all(tabs.map((tab) => tab.close()));
      own.server.closeAllConnections();
      own.server.close();
    }
  });

  for (const [what, meanwhile] of [
    ['its connection lives on', async () => {}],
    ['both edges go away', async () => {
      for (const edge of ['edge-1', 'edge-2']) {
        await fleet.control(`edges/${edge}/kill`);
        await until(async () => (await fleet.fleet()).edges.every(({ name, state }) => name !== edge || state !== 'up'));
        await until(async () => (await fleet.fleet()).edges.every(({ state }) => state === 'up'));
      }
    }],
  ] as const) {
    test(`a tab that the browser has put to sleep gets everything on return, once and in order: ${what}`, LIMIT, async () => {
      const [name, channel] = [user(), room()];
      const page = await open(name, channel);
      await fleet.publish(channel, 0);
      await got(page, 1);
      await page.run(`
        globalThis.slept = 0;
        document.addEventListener('freeze', () => (globalThis.slept = got.length));`);
      await page.send('Page.setWebLifecycleState', { state: 'frozen' });
      for (let i = 1; i <= 40; i++) await fleet.publish(channel, i);
      await meanwhile();
      for (let i = 41; i <= 80; i++) await fleet.publish(channel, i);
      await page.send('Page.setWebLifecycleState', { state: 'active' });
      // It did sleep: nothing came after the freeze and before the return.
      assert.equal(await page.run('return slept;'), 1);
      assert.deepEqual(await got(page, 81), Array.from({ length: 81 }, (_, i) => i));
      await page.run('await live();');
      await fleet.publish(channel, 81);
      assert.deepEqual((await got(page, 82)).at(-1), 81);
      assert.equal(await page.run('return sub.counts.gaps;'), 0);
      await page.close();
    });
  }

  test(`the browser's own EventSource, written from the documentation, without this client`, LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const page = await browser.open(origin);
    await page.run(`
      const edge = '${fleet.url}', token = '${await fleet.token(name)}';
      globalThis.got = [];
      globalThis.lastId = 'tail';
      globalThis.listen = async () => {
        const { ticket } = await (await fetch(edge + '/v1/tickets', { method: 'POST', headers: { Authorization: 'Bearer ' + token } })).json();
        const url = edge + '/v1/events?channels=${channel}&from=' + lastId + '&ticket=' + ticket;
        globalThis.events = new EventSource(url);
        events.addEventListener('messages', (event) => {
          globalThis.lastId = event.lastEventId;
          for (const { data } of JSON.parse(event.data).messages.messages) got.push(data);
        });
        await new Promise((resolve, reject) => {
          events.addEventListener('live', (event) => resolve(globalThis.lastId = event.lastEventId));
          events.onerror = () => reject(new Error('refused'));
        });
        events.onerror = null;
        return url;
      };
      globalThis.used = await listen();`);
    for (const i of [1, 2]) await fleet.publish(channel, i);
    assert.deepEqual(await got(page, 2), [1, 2]);
    await page.run('events.close();');
    for (const i of [3, 4]) await fleet.publish(channel, i);
    await page.run('await listen();');
    await fleet.publish(channel, 5);
    assert.deepEqual(await got(page, 5), [1, 2, 3, 4, 5]);
    // A ticket that was used is refused; another edge may take a moment to hear of it.
    const states = await page.run<number[]>(`
      events.close();
      const closed = () => new Promise((resolve) => {
        const again = new EventSource(used);
        again.onopen = () => resolve(again.readyState);
        again.onerror = () => resolve(again.readyState);
      });
      return Promise.all([closed(), closed(), closed(), closed()]);`);
    assert.ok(states.filter((state) => state === 2).length >= 2, `readyState after a used ticket: ${states}`);
    await page.close();
  });

  test('a page that Web Locks keep apart from the others handles a channel alone', LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const pages = [await open(name, room()), await open(name, room())];
    for (const page of pages) {
      await page.run(`
        globalThis.only = [];
        const one = rejoin.subscribe('${channel}', { oneTab: true, onMessage: ({ data }) => { only.push(data); } });
        if ('${channel}' && one.elsewhere) return;
        while (one.state !== 'live' && !one.elsewhere) await new Promise((resolve) => setTimeout(resolve, 10));`);
    }
    await pages[0]!.run(`while (rejoin.state !== 'live' || !rejoin.subscriptions.get('${channel}').cursor) await new Promise((resolve) => setTimeout(resolve, 10));`);
    await fleet.publish(channel, 1);
    await pages[0]!.run(`while (only.length < 1) await new Promise((resolve) => setTimeout(resolve, 10));`);
    await pages[0]!.run('await rejoin.close();');
    await fleet.publish(channel, 2);
    const only = await pages[1]!.run('while (only.length < 1) await new Promise((resolve) => setTimeout(resolve, 10)); return only;');
    assert.deepEqual(only, [2]);
    await Promise.all(pages.map((page) => page.close()));
  });

  for (const [transport, block] of [
    ['sse', ''],
    ['poll', `const real = fetch; globalThis.fetch = (url, init) => String(url).includes('/v1/events') ? Promise.reject(new TypeError('blocked')) : real(url, init);`],
  ] as const) {
    test(`WebSocket is blocked: over ${transport}, and after a reload too`, LIMIT, async () => {
      const [name, channel] = [user(), room()];
      const page = await browser.open(origin);
      for (const round of [1, 2]) {
        await page.run(`globalThis.WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006, reason: '' })); } close() {} }; ${block}`);
        await start(page, name, channel);
        await page.run('await live();');
        assert.equal(await page.run('return rejoin.transport;'), transport);
        await page.run(`await rejoin.publish('${channel}', 'mine ${round}');`);
        await fleet.publish(channel, `theirs ${round}`);
        assert.deepEqual(await got(page, 2), [`mine ${round}`, `theirs ${round}`]);
        await page.run('await rejoin.close();');
        await page.reload();
      }
      await page.close();
    });
  }

  test('in a service worker, beside its page', LIMIT, async () => {
    const [name, channel] = [user(), room()];
    const page = await open(name, channel);
    const query = new URLSearchParams({ url: fleet.url, token: await fleet.token(name), channel });
    await page.run(`
      const registration = await navigator.serviceWorker.register('/worker.js?${query}', { type: 'module' });
      await navigator.serviceWorker.ready;
      globalThis.ask = () => new Promise((resolve) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = ({ data }) => resolve(data);
        registration.active.postMessage('', [port2]);
      });
      while ((await ask()).state !== 'live') await new Promise((resolve) => setTimeout(resolve, 10));`);
    await fleet.publish(channel, 1);
    assert.deepEqual(await got(page, 1), [1]);
    assert.deepEqual(await page.run('for (;;) { const { got } = await ask(); if (got.length) return got; }'), [1]);
    await page.close();
  });
});
