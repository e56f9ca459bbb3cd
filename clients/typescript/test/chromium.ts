// A real browser, driven over its debugging protocol with nothing but `ws`.

import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { end, spawnTied, type Tied } from './tied.js';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const dist = fileURLToPath(new URL('../../dist', import.meta.url));

/** CHROMIUM, or where distributions put it; undefined: there is none. */
export const chromium = process.env['CHROMIUM'] ?? PLACES.find((path) => existsSync(path));

/** Serves the built client, `scripts` and an empty page, from an origin of its own. */
export async function serveClient(scripts: Record<string, string> = {}): Promise<{ server: Server; origin: string }> {
  const server = createServer((request, response) => {
    const path = request.url!.split('?')[0]!;
    if (!path.endsWith('.js')) {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>page</title>');
      return;
    }
    const script = scripts[path];
    (script === undefined ? readFile(join(dist, path)) : Promise.resolve(script)).then(
      (body) => response.writeHead(200, { 'content-type': 'text/javascript' }).end(body),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

interface Answer {
  id?: number;
  method?: string;
  sessionId?: string;
  params?: unknown;
  result?: Record<string, unknown>;
  error?: { message: string };
}

export class Chromium {
  private last = 0;
  private readonly waiting = new Map<number, { resolve: (result: Record<string, unknown>) => void; reject: (error: Error) => void }>();
  private readonly events = new Set<(answer: Answer) => void>();

  private constructor(
    private readonly child: Tied,
    private readonly socket: WebSocket,
    private readonly profile: string,
  ) {
    socket.on('message', (data) => {
      const answer = JSON.parse(String(data)) as Answer;
      if (answer.id === undefined) {
        for (const listener of this.events) listener(answer);
        return;
      }
      const waiter = this.waiting.get(answer.id);
      this.waiting.delete(answer.id);
      if (answer.error) waiter?.reject(new Error(answer.error.message));
      else waiter?.resolve(answer.result ?? {});
    });
  }

  static async start(): Promise<Chromium> {
    const profile = await mkdtemp(join(tmpdir(), 'rejoin-chromium-'));
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--remote-debugging-port=0', `--user-data-dir=${profile}`];
    const child = spawnTied(chromium!, [...flags, 'about:blank']);
    const url = await new Promise<string>((resolve, reject) => {
      let said = '';
      child.stderr.on('data', (text: Buffer) => {
        said += text.toString();
        const found = /DevTools listening on (ws:\S+)/.exec(said);
        if (found) resolve(found[1]!);
      });
      child.once('exit', () => reject(new Error(said)));
    });
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    return new Chromium(child, socket, profile);
  }

  async stop(): Promise<void> {
    await end(this.child);
    await rm(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }

  async open(url: string): Promise<Page> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, targetId as string, sessionId as string);
    await page.send('Page.enable');
    await page.go(url);
    return page;
  }

  send(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++this.last;
    this.socket.send(JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  event(sessionId: string, method: string): Promise<void> {
    return new Promise((resolve) => {
      const listener = (answer: Answer) => {
        if (answer.sessionId !== sessionId || answer.method !== method) return;
        this.events.delete(listener);
        resolve();
      };
      this.events.add(listener);
    });
  }
}

export class Page {
  constructor(
    private readonly browser: Chromium,
    private readonly targetId: string,
    private readonly sessionId: string,
  ) {}

  send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return this.browser.send(method, params, this.sessionId);
  }

  async go(url: string): Promise<void> {
    const loaded = this.browser.event(this.sessionId, 'Page.loadEventFired');
    await this.send('Page.navigate', { url });
    await loaded;
  }

  async reload(): Promise<void> {
    const loaded = this.browser.event(this.sessionId, 'Page.loadEventFired');
    await this.send('Page.reload');
    await loaded;
  }

  /** Runs an async function body in the page and returns its value. */
  async run<T = unknown>(body: string): Promise<T> {
    const expression = `(async () => { ${body} })()`;
    const { result, exceptionDetails } = (await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })) as {
      result: { value: T };
      exceptionDetails?: { text: string; exception?: { description?: string } };
    };
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async network(online: boolean): Promise<void> {
    await this.send('Network.enable');
    await this.send('Network.emulateNetworkConditions', { offline: !online, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  }

  async close(): Promise<void> {
    await this.browser.send('Target.closeTarget', { targetId: this.targetId });
  }
}
