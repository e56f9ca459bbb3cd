// The client: composes connection, subscriptions and outbox.

import { Connection, type ConnectionState } from './connection.js';
import { RejoinError } from './errors.js';
import { Emitter } from './events.js';
import { watch } from './environment.js';
import { Home } from './home.js';
import { Memberships } from './memberships.js';
import { channelPath, request, toBase64 } from './http.js';
import { toMessage } from './message.js';
import { checkChannel, checkFrom, checkPublish } from './names.js';
import type { HistoryOptions, HistoryPage, PublishOptions, RejoinEvents, RejoinOptions, RejoinState, StateEvent } from './options.js';
import { Outbox, type OutboxEntry, type PublishResult } from './outbox.js';
import type { Ack, Connect, Messages, Reset as WireReset, ServerFrame, Subscribe } from './protocol.js';
import { IndexedDbStorage } from './storage/indexeddb.js';
import { MemoryStorage } from './storage/memory.js';
import type { Storage } from './storage/storage.js';
import { Subscription, type SubscriptionHost } from './subscription.js';
import type { SubscribeOptions } from './subscription-options.js';
import { TokenSource } from './token.js';
import type { LinkTarget, Transport, WebSocketLike } from './transport/link.js';

const TRANSPORTS: readonly Transport[] = ['websocket', 'sse', 'poll'];
/** Until an edge has announced its limit. */
const SUBSCRIPTIONS_DEFAULT = 128;

export class Rejoin extends Emitter<RejoinEvents> {
  /** @internal how to get a WebSocket where there is no global one */
  static loadWebSocket: () => Promise<WebSocketLike | undefined> = async () => undefined;

  private currentState: RejoinState = 'closed';
  private readonly subscriptions = new Map<string, Subscription<never>>();
  private readonly memberships: Memberships;
  private readonly pendingAcks = new Map<string, Ack>();
  private readonly outbox: Outbox;
  private readonly connection: Connection;
  private readonly tokens: TokenSource;
  private readonly storage: Storage;
  private readonly url: string;
  private readonly random: () => number;
  private readonly now: () => number;
  private home: Home | undefined;
  private finding: Promise<Home> | undefined;
  private readonly found: Promise<Home>;
  private resolveFound!: (home: Home) => void;
  private unwatch: (() => void) | undefined;
  private ended = false;

  constructor(private readonly options: RejoinOptions) {
    super();
    this.random = options.random ?? Math.random;
    this.now = options.now ?? Date.now;
    this.url = options.url.replace(/^ws/, 'http').replace(/\/+$/, '');
    this.storage = options.storage ?? (globalThis.indexedDB ? new IndexedDbStorage() : new MemoryStorage());
    this.tokens = new TokenSource(options.token, options.getToken, this.now);
    this.found = new Promise((resolve) => (this.resolveFound = resolve));
    this.connection = new Connection(
      {
        target: () => this.target(),
        transports: options.transports ?? TRANSPORTS,
        tokens: this.tokens,
        dialTimeoutMs: options.dialTimeoutMs ?? 8_000,
        upgradeMs: options.upgradeMs ?? 30_000,
        retryMinMs: options.retryMinMs ?? 1_000,
        retryMaxMs: options.retryMaxMs ?? 30_000,
        random: this.random,
        now: this.now,
      },
      {
        prepare: () => this.prepare(),
        hello: (token) => this.hello(token),
        opened: () => this.opened(),
        frame: (frame, answered) => this.onFrame(frame, answered),
        changed: (state, error, retryInMs) => this.onConnection(state, error, retryInMs),
      },
    );
    this.memberships = new Memberships(
      { inbox: options.inbox, rooms: options.rooms },
      {
        knows: (channel) => this.subscriptions.has(channel),
        subscribe: (channel, implied) => this.emit('subscription', this.subscribe(channel, implied)),
        leave: (channel) => this.connection.request({ unsubscribe: { channel } }, () => {}),
        get: async (path) => (await request(await this.target(), path, await this.tokens.get())).json() as Promise<object>,
        report: (error) => this.emit('error', error),
        random: this.random,
      },
    );
    this.outbox = new Outbox(
      {
        publish: (publish, onReply) => this.connection.request({ publish }, onReply),
        changed: (entry) => this.emit('outbox', entry),
        failed: (error) => this.storageFailed(error),
        maxBytes: () => this.connection.connected.limits?.message_bytes ?? 0,
        random: this.random,
        now: this.now,
      },
      options.publishWindow ?? 1,
      options.outboxMax ?? 1_000,
    );
  }

  get state(): RejoinState {
    return this.currentState;
  }

  /** What carries the connection, while there is one. */
  get transport(): Transport | undefined {
    return this.connection.transport;
  }

  /** Which edge the connection is on. */
  get edge(): string | undefined {
    return this.connection.state === 'open' ? this.connection.connected.edge : undefined;
  }

  get user(): string | undefined {
    return this.home?.user;
  }

  /** What has been published here and is not sent yet, or failed. */
  get pending(): OutboxEntry[] {
    return this.outbox.entries;
  }

  /** Connects, and stays connected until `close`. */
  connect(): void {
    if (this.ended) throw new RejoinError('closed', 'this client was closed: make a new one');
    this.unwatch ??= watch({
      online: () => this.connection.wake(true),
      offline: () => this.connection.networkLost(),
      visible: () => this.connection.wake(),
    });
    void this.findHome().catch(() => {});
    this.connection.open();
  }

  /** The app or the network came back: tries at once instead of later. For
   * where nothing says so by itself, as React Native. */
  wake(): void {
    this.connection.wake(true);
  }

  /** Ends this client; resolves once its cursors are stored. What is in the
   * outbox stays there for the next one. */
  async close(): Promise<void> {
    this.ended = true;
    this.unwatch?.();
    for (const subscription of [...this.subscriptions.values()]) subscription.close();
    this.connection.close();
    await this.home?.cursors.flush();
    this.home?.place.release();
  }

  /** Listens to a channel, now and after every reconnect, until it is closed. */
  subscribe<T = unknown>(channel: string, options: SubscribeOptions<T> = {}): Subscription<T> {
    if (this.ended) throw new RejoinError('closed', 'this client was closed: make a new one');
    checkChannel(channel);
    checkFrom(options.from);
    if (this.subscriptions.has(channel)) {
      throw new RejoinError('already_subscribed', `there is a subscription to ${channel}`, { channel });
    }
    const subscription = new Subscription<T>(channel, options, this.hostOf(channel, options));
    this.subscriptions.set(channel, subscription as unknown as Subscription<never>);
    this.refreshState();
    return subscription;
  }

  /** Resolves once the backplane has stored it durably, however long that
   * takes. Until then it is in `pending`, under an id that may be given. */
  async publish(channel: string, data: unknown, options: PublishOptions = {}): Promise<PublishResult> {
    if (this.ended) throw new RejoinError('closed', 'this client was closed', { channel });
    checkPublish(channel, options.id, options.type);
    void this.findHome().catch(() => {});
    return this.outbox.add(channel, data, options);
  }

  /** Publishes a failed message again. */
  retry(id: string): Promise<PublishResult> {
    return this.outbox.retry(id);
  }

  /** Forgets a message that was not sent; false if it is being sent. */
  discard(id: string): Promise<boolean> {
    return this.outbox.discard(id);
  }

  /** Tells those who listen now; never stored, lost if there is no connection. */
  signal(channel: string, data: unknown, options: { type?: string } = {}): void {
    const content = data instanceof Uint8Array ? { data_base64: toBase64(data) } : { data: data ?? null };
    this.connection.send({ signal: { channel, ...options, ...content } });
  }

  /** How far this device has come; said again after a reconnect if need be. */
  ack(channel: string, ack: { delivered?: string; read?: string }): void {
    const whole: Ack = { ...this.pendingAcks.get(channel), channel, ...ack };
    if (this.connection.state === 'open') this.connection.send({ ack: whole });
    else this.pendingAcks.set(channel, whole);
  }

  /** Who is present on a channel now. */
  presence(channel: string): Promise<string[]> {
    return new Promise((resolve, reject) => {
      this.connection.request({ presence: { channel } }, (frame, error) => {
        if (error) reject(error);
        else resolve(frame?.presence?.users ?? []);
      });
    });
  }

  /** Reads messages without subscribing, oldest first. */
  async history<T = unknown>(channel: string, { from = 'last:50', limit = 50 }: HistoryOptions = {}): Promise<HistoryPage<T>> {
    const path = channelPath(channel, 'messages', { from, limit });
    const response = await request(await this.target(), path, await this.tokens.get());
    const body = (await response.json()) as Messages & { cursor: string; live: boolean; reset?: WireReset };
    const { reason = '', head = '', ...rest } = body.reset ?? {};
    return {
      messages: (body.messages ?? []).map((wire) => toMessage<T>(channel, `${body.epoch}-${wire.seq}`, wire, true)),
      cursor: body.cursor,
      live: body.live,
      ...(body.reset && { reset: { ...rest, channel, reason, head } }),
    };
  }

  private findHome(): Promise<Home> {
    this.finding ??= (async () => {
      try {
        const { tokens, now } = this;
        const storage = await this.usableStorage();
        const { user, device } = this.options;
        const home = await Home.find({ storage, tokens, user, device, now, onError: (error) => this.storageFailed(error) });
        await this.outbox.open(storage, home.outboxPrefix);
        this.home = home;
        this.resolveFound(home);
        if (this.ended) home.place.release();
        return home;
      } catch (error) {
        this.finding = undefined;
        throw RejoinError.of(error, 'storage_failed');
      }
    })();
    return this.finding;
  }

  private async prepare(): Promise<void> {
    await this.findHome();
    await Promise.all([...this.subscriptions.values()].map((subscription) => subscription.soon));
  }

  private hello(token: string | undefined): Connect {
    // The edge takes so many; it refuses the others one by one, not all.
    const most = this.connection.connected.limits?.subscriptions ?? SUBSCRIPTIONS_DEFAULT;
    const subscriptions = [...this.subscriptions.values()].slice(0, most);
    return {
      ...(token !== undefined && { token }),
      device: this.home!.device,
      ...this.memberships.hello(this.home!.user),
      subscriptions: subscriptions.map((subscription) => subscription.wire()).filter((it): it is Subscribe => it !== undefined),
    };
  }

  private opened(): void {
    const { connected } = this.connection;
    const { home } = this;
    if (home && !home.belongsTo(connected.user)) {
      const message = `the token is of ${connected.user}, what is kept here of ${home.user}`;
      this.connection.close(new RejoinError('user_changed', message));
      return;
    }
    this.setState('connected');
    this.emit('session', connected);
    for (const ack of this.pendingAcks.values()) this.connection.send({ ack });
    this.pendingAcks.clear();
    for (const subscription of this.subscriptions.values()) subscription.ask();
    this.memberships.opened(connected.user ?? '', this.connection.transport === 'websocket');
    this.outbox.setConnected(true);
    void home?.remember().catch((error: unknown) => this.storageFailed(error));
    this.adopt();
  }

  /** Looks for the outbox of a tab that is gone: on connecting, and now and then. */
  private adopt(): void {
    void this.home?.forOrphans((prefix) => this.outbox.adopt(prefix)).catch((error: unknown) => this.storageFailed(error));
  }

  private onFrame(frame: ServerFrame, answered: boolean): void {
    const { subscribed, unsubscribed, messages, live, reset, error, signal, receipt, ping } = frame;
    if (ping) {
      for (const subscription of this.subscriptions.values()) subscription.onFrame(frame);
      this.adopt();
    }
    // The answer to one request of ours is no news of a subscription.
    const body = subscribed ?? messages ?? live ?? reset ?? signal ?? receipt ?? (answered ? undefined : (unsubscribed ?? error));
    if (receipt) {
      const { channel = '', device = '', unread = 0, ...rest } = receipt;
      this.emit('receipt', { channel, device, unread, ...rest });
    }
    if (subscribed && !answered && !this.subscriptions.has(subscribed.channel!)) this.memberships.found(subscribed);
    else if (body?.channel) this.subscriptions.get(body.channel)?.onFrame(frame);
    else if (error && !answered) this.onError(RejoinError.from(error), frame.req);
  }

  /** Of no channel: with the number of `connect`, it is about the rooms. */
  private onError(error: RejoinError, req: number | undefined): void {
    const { user = '' } = this.connection.connected;
    if (!req || !this.memberships.refused(user, error)) this.emit('error', error);
  }

  private onConnection(state: ConnectionState, error?: RejoinError, retryInMs?: number): void {
    if (state === 'open') return this.refreshState();
    this.outbox.setConnected(false);
    this.memberships.closed();
    for (const subscription of this.subscriptions.values()) subscription.onDisconnected();
    this.setState(state, { ...(error && { error }), ...(retryInMs !== undefined && { retryInMs }) });
  }

  /** While there is a connection, the state is that of the subscriptions. */
  private refreshState(): void {
    if (this.connection.state !== 'open') return;
    const states = [...this.subscriptions.values()].filter((it) => !it.elsewhere).map((it) => it.state);
    if (states.length === 0) this.setState('connected');
    else this.setState(states.every((state) => state === 'live') ? 'live' : 'catchingUp');
  }

  private setState(state: RejoinState, more: Partial<StateEvent> = {}): void {
    const previous = this.currentState;
    if (state === previous && !more.error) return;
    this.currentState = state;
    const { transport } = this.connection;
    const event: StateEvent = { state, previous, ...(transport && { transport }), ...more };
    this.emit('state', event);
    this.emit(state, event);
  }

  private hostOf<T>(channel: string, options: SubscribeOptions<T>): SubscriptionHost {
    let place = '';
    let release = () => {};
    return {
      begin: async () => {
        const home = await this.found;
        const begun = await home.begin(channel, options.oneTab ?? false);
        ({ place, release } = begun);
        return options.persist === false ? undefined : begun.cursor;
      },
      save: (cursor) => this.home?.cursors.save(channel, place, cursor),
      ask: (subscribe) => {
        this.connection.request({ subscribe }, (_, error) => {
          if (error) this.subscriptions.get(channel)?.onRefused(error);
        });
      },
      leave: () => this.connection.request({ unsubscribe: { channel } }, () => {}),
      ack: (ack) => this.ack(channel, ack),
      changed: () => this.refreshState(),
      report: (error) => this.emit('error', error),
      reset: (reset) => this.emit('reset', reset),
      user: () => this.home?.user,
      ended: () => {
        this.subscriptions.delete(channel);
        release();
        this.refreshState();
      },
      random: this.random,
    };
  }

  private async target(): Promise<LinkTarget> {
    const webSocket = this.options.webSocket ?? (globalThis.WebSocket as WebSocketLike | undefined) ?? (await Rejoin.loadWebSocket());
    return { url: this.url, fetch: this.options.fetch ?? globalThis.fetch.bind(globalThis), webSocket };
  }

  /** Where a browser refuses (a private window), works without a memory of
   * earlier pages rather than not at all. */
  private async usableStorage(): Promise<Storage> {
    try {
      await this.storage.get('rejoin/device');
      return this.storage;
    } catch (error) {
      this.storageFailed(error);
      return new MemoryStorage();
    }
  }

  private storageFailed(cause: unknown): void {
    this.emit('error', new RejoinError('storage_failed', 'what is kept here could not be read or written', { retryable: true, cause }));
  }
}
