// What server-sent events and long-poll share: frames in one direction are
// requests of their own, each complete by itself, on whichever edge.

import { RejoinError } from '../errors.js';
import { channelPath, payload, request, type HttpRequest } from '../http.js';
import type { ClientFrame, Connect, ErrorBody, ServerFrame } from '../protocol.js';
import { subject } from '../token.js';
import type { Link, LinkEvents, LinkTarget, Transport } from './link.js';

/** As on the WebSocket, where the edge does not announce another. */
const PING_MS = 25_000;
/** As long as an answer over the WebSocket is waited for. */
const ANSWER_MS = 10_000;

export abstract class HttpLink implements Link {
  abstract readonly transport: Transport;
  /** By channel, where its next message is to be read from. */
  protected readonly from = new Map<string, string>();
  protected token: string | undefined;
  /** Channels that have been live on this link: their next request starts
   * where the last one ended, which is no news. */
  private readonly live = new Set<string>();
  protected device = '';
  private connectReq = 0;
  private opened = false;
  private over = false;
  private restarting = false;
  private reading: AbortController | undefined;

  constructor(
    protected readonly target: LinkTarget,
    private readonly events: LinkEvents,
  ) {
    queueMicrotask(() => this.over || events.onOpen());
  }

  /** Reads until the signal aborts; a return means that the other side ended it. */
  protected abstract read(channels: string[], signal: AbortSignal): Promise<void>;

  send(frame: ClientFrame): void {
    const { req = 0 } = frame;
    if (frame.connect) {
      this.connect(req, frame.connect);
    } else if (frame.subscribe) {
      this.from.set(frame.subscribe.channel!, frame.subscribe.from ?? 'tail');
      this.live.delete(frame.subscribe.channel!);
      this.restart();
    } else if (frame.unsubscribe) {
      const { channel } = frame.unsubscribe;
      this.from.delete(channel!);
      this.restart();
      queueMicrotask(() => this.pass({ req, unsubscribed: { channel: channel! } }));
    } else if (frame.refresh) {
      this.token = frame.refresh.token;
      queueMicrotask(() => this.pass({ req, refreshed: {} }));
    } else if (!frame.pong) {
      void this.ask(req, frame);
    }
  }

  close(): void {
    this.over = true;
    this.reading?.abort();
  }

  protected pass(frame: ServerFrame): void {
    if (this.over) return;
    if (!this.opened) {
      this.opened = true;
      const connected = { user: subject(this.token) ?? '', ping_ms: PING_MS };
      const req = this.connectReq;
      this.events.onFrame(frame.connected ? { ...frame, req } : { req, connected });
      if (frame.connected) return;
    }
    // Every request begins with these; only the first says something new.
    if (frame.connected || (frame.subscribed && this.live.has(frame.subscribed.channel!))) return;
    if (frame.live) this.live.add(frame.live.channel!);
    if (frame.reset) this.live.delete(frame.reset.channel!);
    this.events.onFrame(frame);
  }

  protected alive(): void {
    if (!this.over) this.events.onAlive();
  }

  /** The positions after what was just passed on, in the order of `channels`. */
  protected advance(channels: string[], cursors: string[]): void {
    // A subscription that was just asked for anew says itself where it starts.
    if (this.restarting) return;
    channels.forEach((channel, i) => {
      if (cursors[i] && this.from.has(channel)) this.from.set(channel, cursors[i]);
    });
  }

  private connect(req: number, body: Connect): void {
    this.connectReq = req;
    this.token = body.token;
    this.device = body.device ?? '';
    for (const { channel, from } of body.subscriptions ?? []) this.from.set(channel!, from ?? 'tail');
    this.restart();
  }

  /** Reads anew, once for all changes that are made together. */
  private restart(): void {
    if (this.restarting) return;
    this.restarting = true;
    setTimeout(() => {
      this.restarting = false;
      this.reading?.abort();
      if (!this.over) void this.readOn((this.reading = new AbortController()).signal);
    });
  }

  private async readOn(signal: AbortSignal): Promise<void> {
    const channels = [...this.from.keys()];
    try {
      if (channels.length === 0) {
        // Nothing to listen to: whether an edge is there is all that counts.
        await request(this.target, '/healthz', this.token, { signal });
        this.pass({ connected: { user: subject(this.token) ?? '', ping_ms: 0 } });
        return;
      }
      await this.read(channels, signal);
      if (!signal.aborted) this.end(1006, 'the response ended', 0);
    } catch (error) {
      if (!signal.aborted) this.failed(RejoinError.of(error, 'disconnected'), channels);
    }
  }

  private failed(error: RejoinError, channels: string[]): void {
    if (error.code === 'unauthorized') return this.end(4501, error.message, 0);
    if (error.code === 'disconnected' || error.code === 'unavailable' || error.retryable) {
      return this.end(error.code === 'disconnected' ? 1006 : 4004, error.message, error.retryAfterMs);
    }
    // A refusal that names its channel, or one of the only channel there is,
    // ends that subscription and no other.
    const refused = error.channel === undefined ? channels : [error.channel];
    for (const channel of refused) {
      this.from.delete(channel);
      this.pass({ req: this.connectReq, error: { ...bodyOf(error), channel } });
    }
    this.restart();
  }

  private end(code: number, reason: string, retryAfterMs: number): void {
    if (this.over) return;
    this.over = true;
    this.reading?.abort();
    this.events.onClosed({ code, reason, opened: this.opened, retryAfterMs });
  }

  /** What is one request and its answer over HTTP too. */
  private async ask(req: number, frame: ClientFrame): Promise<void> {
    try {
      const answer = await this.answer(frame);
      // Over a WebSocket, what asks for no answer has none.
      if (req) this.pass({ ...answer, req });
    } catch (error) {
      const body = bodyOf(RejoinError.of(error, 'disconnected'));
      // This request did not get through; the link may well be fine.
      if (body.code === 'disconnected') Object.assign(body, { code: 'unavailable', retryable: true });
      this.pass({ req, error: body });
    }
  }

  private async answer(frame: ClientFrame): Promise<ServerFrame> {
    // A request that hangs would hold one of the few connections of a browser.
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), ANSWER_MS);
    const ask = async (path: string, options: HttpRequest) => {
      const response = await request(this.target, path, this.token, { ...options, signal: abort.signal });
      return ((await response.json()) ?? {}) as object;
    };
    return this.askFor(frame, ask).finally(() => clearTimeout(timer));
  }

  private async askFor(frame: ClientFrame, ask: (path: string, options: HttpRequest) => Promise<object>): Promise<ServerFrame> {
    const post = (path: string, body: string | Uint8Array) => ask(path, { method: 'POST', body });
    if (frame.publish) {
      const { channel, id, type } = frame.publish;
      return { published: await post(channelPath(channel!, 'messages', { id, type }), payload(frame.publish)) };
    }
    if (frame.signal) {
      const { channel, type } = frame.signal;
      return { signal: await post(channelPath(channel!, 'signals', { type }), payload(frame.signal)) };
    }
    if (frame.ack) {
      const ack = JSON.stringify({ ...frame.ack, device: this.device });
      return { receipt: await post(`/v1/users/${subject(this.token)}/acks`, ack) };
    }
    if (frame.presence) {
      return { presence: await ask(channelPath(frame.presence.channel!, 'presence'), {}) };
    }
    throw new RejoinError('unsupported', `not over ${this.transport}`);
  }
}

function bodyOf(error: RejoinError): ErrorBody {
  const { code, message, retryable, retryAfterMs } = error;
  return { code, message, retryable, retry_after_ms: retryAfterMs };
}
