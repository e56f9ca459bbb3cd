// A protocol peer of a few lines, for what a real edge will not do on command:
// fall silent, skip a message, close with a certain code. It keeps one log in
// memory. Delivery itself is tested against real edges (edges.test.ts).

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocketServer, type WebSocket } from 'ws';
import type { ClientFrame, ServerFrame, WireMessage } from '../src/protocol.js';

export const EPOCH = '00000000000000e1';
export const at = (seq: number) => `${EPOCH}-${seq}`;

interface Logged extends WireMessage {
  channel: string;
  seq: number;
}

export class Peer {
  readonly log: Logged[] = [];
  /** Every frame that a client sent, in order. */
  readonly heard: ClientFrame[] = [];
  readonly sockets = new Set<WebSocket>();
  pingMs = 25_000;
  connections = 0;
  /** Answers a frame instead of the peer, if it returns true. */
  intercept: (frame: ClientFrame, send: (frame: ServerFrame) => void, socket: WebSocket) => boolean | void = () => {};
  private readonly subscribers = new Map<WebSocket, Set<string>>();
  private waiters: { test: () => boolean; resolve: () => void }[] = [];

  private constructor(
    readonly server: Server,
    readonly url: string,
  ) {
    const sockets = new WebSocketServer({ server, path: '/v1/connect', handleProtocols: () => 'rejoin.v1.json' });
    sockets.on('connection', (socket) => this.serve(socket));
  }

  static async start(port = 0): Promise<Peer> {
    const server = createServer((_, response) => response.writeHead(404).end());
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    return new Peer(server, `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.terminate();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Resolves once `test` holds, checked at every frame and connection. */
  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push({ test, resolve }));
  }

  heardOf<K extends keyof ClientFrame>(key: K): NonNullable<ClientFrame[K]>[] {
    return this.heard.filter((frame) => frame[key] !== undefined).map((frame) => frame[key]!);
  }

  publish(channel: string, data: unknown, more: WireMessage = {}): number {
    const seq = (this.log.at(-1)?.seq ?? 0) + 1;
    const message: Logged = { channel, seq, data, time: 1_700_000_000_000, ...this.prevOf(channel), ...more };
    this.log.push(message);
    for (const [socket, channels] of this.subscribers) {
      if (channels.has(channel)) this.send(socket, { messages: { channel, epoch: EPOCH, messages: [this.wire(message)] } });
    }
    return seq;
  }

  broadcast(frame: ServerFrame): void {
    for (const socket of this.sockets) this.send(socket, frame);
  }

  close(code: number, reason = ''): void {
    for (const socket of this.sockets) socket.close(code, reason);
  }

  cut(): void {
    for (const socket of this.sockets) socket.terminate();
  }

  get head(): string {
    return at(this.log.at(-1)?.seq ?? 0);
  }

  private prevOf(channel: string): { prev?: number } {
    const prev = this.log.filter((it) => it.channel === channel).at(-1)?.seq;
    return prev === undefined ? {} : { prev };
  }

  private wire({ channel: _, ...message }: Logged): WireMessage {
    return message;
  }

  private serve(socket: WebSocket): void {
    this.connections++;
    this.sockets.add(socket);
    this.subscribers.set(socket, new Set());
    socket.on('close', () => {
      this.sockets.delete(socket);
      this.subscribers.delete(socket);
      this.check();
    });
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data)) as ClientFrame;
      this.heard.push(frame);
      if (!this.intercept(frame, (answer) => this.send(socket, answer), socket)) this.answer(socket, frame);
      this.check();
    });
    this.check();
  }

  private answer(socket: WebSocket, { req, ...frame }: ClientFrame): void {
    const reply = (body: ServerFrame) => this.send(socket, { ...(req !== undefined && { req }), ...body });
    if (frame.connect) {
      reply({ connected: { session: 's', user: '42', edge: 'peer', ping_ms: this.pingMs, limits: { message_bytes: 1_000, subscriptions: 128 } } });
      for (const { channel = '', from = 'tail' } of frame.connect.subscriptions ?? []) this.subscribe(socket, channel, from, reply);
    } else if (frame.subscribe) {
      this.subscribe(socket, frame.subscribe.channel!, frame.subscribe.from ?? 'tail', reply);
    } else if (frame.unsubscribe) {
      this.subscribers.get(socket)!.delete(frame.unsubscribe.channel!);
      reply({ unsubscribed: { channel: frame.unsubscribe.channel! } });
    } else if (frame.publish) {
      const { id, channel = '', type, data } = frame.publish;
      const known = this.log.find((it) => it.id === id);
      const seq = known?.seq ?? this.publish(channel, data, { ...(id && { id }), ...(type && { type }), sender: '42' });
      reply({ published: { id: id!, channel, cursor: at(seq), duplicate: known !== undefined } });
    } else if (frame.refresh) {
      reply({ refreshed: { expires_ms: 0 } });
    }
  }

  private subscribe(socket: WebSocket, channel: string, from: string, reply: (frame: ServerFrame) => void): void {
    const start = from === 'tail' ? (this.log.at(-1)?.seq ?? 0) : from === 'earliest' ? 0 : Number(from.split('-')[1]);
    const missed = this.log.filter((it) => it.channel === channel && it.seq > start);
    this.subscribers.get(socket)!.add(channel);
    reply({ subscribed: { channel, epoch: EPOCH, cursor: at(start), head: this.head, replay: missed.length > 0 } });
    if (missed.length > 0) this.send(socket, { messages: { channel, epoch: EPOCH, messages: missed.map((it) => this.wire(it)) } });
    this.send(socket, { live: { channel, cursor: this.head } });
  }

  private send(socket: WebSocket, frame: ServerFrame): void {
    if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(frame));
  }

  private check(): void {
    const ready = this.waiters.filter(({ test }) => test());
    this.waiters = this.waiters.filter((waiter) => !ready.includes(waiter));
    for (const { resolve } of ready) resolve();
  }
}
