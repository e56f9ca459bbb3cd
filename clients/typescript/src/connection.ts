// Keeps one link to some edge: dials, watches, comes back. It knows nothing of
// subscriptions or the outbox, which hear from it through `ConnectionHooks`.

import { Backoff } from './backoff.js';
import { CLOSE, comesBack, RejoinError } from './errors.js';
import type { ClientFrame, Connect, Connected, ServerFrame } from './protocol.js';
import { Requests, type OnReply } from './requests.js';
import { Timer } from './timer.js';
import type { TokenSource } from './token.js';
import { TransportChoice } from './transport/choice.js';
import { dial } from './transport/dial.js';
import type { Link, LinkClosed, LinkTarget, Transport } from './transport/link.js';

/** A connection that lasted so long has worked: the next failure is a new one. */
const STABLE_MS = 5_000;
/** Longest wait before the preferred transport is tried again. */
const UPGRADE_MAX_MS = 600_000;
/** A token is replaced so long before it expires, or in the last fifth of a
 * short life; and again after so long if that failed. */
const REFRESH_AHEAD_MS = 60_000;
const REFRESH_RETRY_MS = 5_000;

export type ConnectionState = 'closed' | 'connecting' | 'open' | 'offline';

export interface ConnectionHooks {
  /** Resolves when there is something to say. */
  prepare(): Promise<void>;
  /** What to say first; it is said at once. */
  hello(token: string | undefined): Connect;
  opened(connected: Connected): void;
  /** `answered`: it was the answer to a request. */
  frame(frame: ServerFrame, answered: boolean): void;
  changed(state: ConnectionState, error?: RejoinError, retryInMs?: number): void;
}

export interface ConnectionOptions {
  target(): Promise<LinkTarget>;
  transports: readonly Transport[];
  tokens: TokenSource;
  dialTimeoutMs: number;
  /** First wait before the preferred transport is tried again. */
  upgradeMs: number;
  retryMinMs: number;
  retryMaxMs: number;
  random: () => number;
  now: () => number;
}

export class Connection {
  state: ConnectionState = 'closed';
  connected: Connected = {};
  private link: Link | undefined;
  private candidate: Link | undefined;
  private readonly requests = new Requests();
  private readonly backoff: Backoff;
  private readonly choice: TransportChoice;
  private readonly retryTimer = new Timer();
  private readonly dialTimer = new Timer();
  private readonly pulseTimer = new Timer();
  private readonly refreshTimer = new Timer();
  private readonly upgradeTimer = new Timer();
  private upgradeMs: number;
  private attempts = 0;
  private openedAt = 0;
  private heardAt = 0;
  private notBefore = 0;
  private refused = false;

  constructor(
    private readonly options: ConnectionOptions,
    private readonly hooks: ConnectionHooks,
  ) {
    this.backoff = new Backoff(options.retryMinMs, options.retryMaxMs, options.random);
    this.choice = new TransportChoice(options.transports);
    this.upgradeMs = options.upgradeMs;
  }

  get transport(): Transport | undefined {
    return this.link?.transport;
  }

  open(): void {
    if (this.state !== 'closed') return;
    this.refused = false;
    this.backoff.reset();
    void this.attempt();
  }

  close(error?: RejoinError): void {
    this.drop();
    this.retryTimer.stop();
    this.notBefore = 0;
    this.set('closed', error);
  }

  /** The network or the page came back: do not sit out a delay. */
  wake(networkChanged = false): void {
    if (networkChanged) this.choice.startOver();
    const { ping_ms = 0 } = this.connected;
    const quietMs = this.options.now() - this.heardAt;
    if (this.state === 'offline' || (this.state === 'connecting' && networkChanged)) {
      this.drop();
      this.backoff.reset();
      void this.attempt();
    } else if (this.state === 'open' && ping_ms > 0 && quietMs > 1.2 * ping_ms) {
      this.lost('silent', { code: 1006, reason: 'nothing was heard while asleep', opened: true, retryAfterMs: 0 }, 0);
    }
  }

  /** The network went away: what is sent now goes nowhere. */
  networkLost(): void {
    if (this.state === 'open' || this.state === 'connecting') {
      this.lost('offline', { code: 1006, reason: 'the network went away', opened: true, retryAfterMs: 0 });
    }
  }

  send(frame: ClientFrame): void {
    this.link?.send(frame);
  }

  request(frame: ClientFrame, onReply: OnReply): void {
    if (this.state !== 'open' || !this.link) {
      onReply(undefined, new RejoinError('disconnected', 'there is no connection', { retryable: true }));
      return;
    }
    this.link.send({ req: this.requests.add(onReply), ...frame });
  }

  private async attempt(): Promise<void> {
    const attempt = ++this.attempts;
    this.retryTimer.stop();
    this.set('connecting');
    this.expectAnswer();
    try {
      const target = await this.options.target();
      const token = await this.options.tokens.get();
      if (attempt !== this.attempts) return;
      this.link = this.dial(target, this.choice.current, () => {});
      void this.greet(this.link, token);
    } catch (error) {
      if (attempt === this.attempts) this.giveUp(error);
    }
  }

  /** Something of ours failed before the edge had a say. */
  private giveUp(cause: unknown): void {
    const error = cause instanceof RejoinError ? cause : new RejoinError('disconnected', String(cause), { retryable: true, cause });
    this.drop();
    if (error.retryable) this.retry(error, error.retryAfterMs);
    else this.close(error);
  }

  private async greet(link: Link, token: string | undefined): Promise<void> {
    this.expectAnswer();
    try {
      await this.hooks.prepare();
    } catch (error) {
      if (link === this.link) this.giveUp(error);
    }
    if (link !== this.link) return;
    const req = this.requests.add((frame, error) => {
      if (frame?.connected) this.welcome(frame.connected);
      // After `unauthorized` the edge closes, and the code decides.
      else if (error && !error.retryable && error.code !== 'unauthorized') this.close(error);
    });
    link.send({ req, connect: this.hooks.hello(token) });
  }

  private expectAnswer(): void {
    const closed = { code: 1006, reason: 'no answer came in time', opened: false, retryAfterMs: 0 };
    this.dialTimer.start(this.options.dialTimeoutMs, () => this.lost('timeout', closed));
  }

  private dial(target: LinkTarget, transport: Transport, onOpen: () => void): Link {
    const link: Link = dial(transport, target, {
      onOpen,
      onFrame: (frame) => {
        if (link === this.link) this.heard(frame);
      },
      onAlive: () => {
        if (link === this.link) this.heardAt = this.options.now();
      },
      onClosed: (closed) => {
        if (link === this.link) this.lost('disconnected', closed);
        else if (link === this.candidate) this.upgradeLater();
      },
    });
    return link;
  }

  private welcome(connected: Connected): void {
    const { now } = this.options;
    this.dialTimer.stop();
    this.connected = connected;
    this.openedAt = this.heardAt = now();
    this.refused = false;
    this.notBefore = 0;
    this.backoff.limits(connected.retry?.min_ms ?? 0, connected.retry?.max_ms ?? 0);
    this.choice.worked(this.link!.transport);
    if (this.link!.transport === this.choice.preferred) this.upgradeMs = this.options.upgradeMs;
    else this.upgradeLater();
    this.pulse();
    this.refreshBefore(connected.expires_ms ? connected.expires_ms - now() : 0);
    this.state = 'open';
    this.hooks.opened(connected);
    this.hooks.changed('open');
  }

  private heard(frame: ServerFrame): void {
    this.heardAt = this.options.now();
    if (frame.ping) this.link?.send({ pong: {} });
    if (frame.token_expiring) void this.refresh();
    if (frame.goaway) this.goAway(frame.goaway.retry_after_ms ?? 0);
    const answered = this.requests.settle(frame);
    this.hooks.frame(frame, answered);
  }

  /** The edge ends the connection itself; should it not, the client does. */
  private goAway(retryAfterMs: number): void {
    this.notBefore = this.options.now() + retryAfterMs;
    this.retryTimer.start(retryAfterMs, () => {
      this.lost('goaway', { code: 4000, reason: 'asked to leave', opened: true, retryAfterMs: 0 }, 0);
    });
  }

  /** Nothing for two intervals: the connection is half open. */
  private pulse(): void {
    const { ping_ms = 0 } = this.connected;
    if (ping_ms === 0) return;
    const leftMs = this.heardAt + 2 * ping_ms - this.options.now();
    if (leftMs > 0) return this.pulseTimer.start(leftMs, () => this.pulse());
    this.lost('silent', { code: 1006, reason: 'nothing was heard for two ping intervals', opened: true, retryAfterMs: 0 });
  }

  private lost(why: string, closed: LinkClosed, delayMs?: number): void {
    const { tokens, now } = this.options;
    if (this.openedAt && now() - this.openedAt > STABLE_MS) this.backoff.reset();
    if (this.link && (!closed.opened || (this.state === 'connecting' && closed.code === 1006))) this.choice.failed();
    this.drop();
    const error = new RejoinError(why === 'disconnected' ? closed.reason || why : why, `connection ended: ${closed.code} ${closed.reason}`);
    const unauthorized = closed.code === CLOSE.unauthorized;
    // A token may have expired on the way: one more try with a new one.
    if (unauthorized && tokens.refreshable && !this.refused) this.refused = true;
    else if (!comesBack(closed.code)) return this.close(error);
    if (unauthorized || closed.code === CLOSE.tokenExpired) tokens.reject();
    if (delayMs !== undefined) void this.attempt();
    else this.retry(error, closed.retryAfterMs);
  }

  private retry(error: RejoinError, hintMs: number): void {
    const pacedMs = this.notBefore - this.options.now();
    this.notBefore = 0;
    // The edge has spread its goaways itself.
    const delayMs = pacedMs > 0 ? pacedMs : this.backoff.next(hintMs);
    this.retryTimer.start(delayMs, () => void this.attempt());
    this.set('offline', error, delayMs);
  }

  /** Forgets the link. */
  private drop(): void {
    this.attempts++;
    const { link, candidate } = this;
    this.link = this.candidate = undefined;
    link?.close();
    candidate?.close();
    this.openedAt = 0;
    for (const timer of [this.retryTimer, this.dialTimer, this.pulseTimer, this.refreshTimer, this.upgradeTimer]) timer.stop();
    if (this.state === 'open') this.state = 'connecting';
    this.requests.fail();
  }

  private refreshBefore(expiresInMs: number): void {
    if (expiresInMs <= 0 || !this.options.tokens.refreshable) return;
    this.refreshTimer.start(expiresInMs - Math.min(REFRESH_AHEAD_MS, expiresInMs / 5), () => void this.refresh());
  }

  private async refresh(): Promise<void> {
    const { link } = this;
    if (!this.options.tokens.refreshable) return;
    try {
      const token = await this.options.tokens.renew('expiring');
      if (link !== this.link) return;
      this.request({ refresh: { token } }, (frame) => {
        const expires = frame?.refreshed?.expires_ms ?? 0;
        if (expires) this.refreshBefore(expires - this.options.now());
      });
    } catch {
      // The connection ends with the token, and then asks again.
      if (link === this.link) this.refreshTimer.start(REFRESH_RETRY_MS, () => void this.refresh());
    }
  }

  /** From a fallback, tries the preferred transport now and then. */
  private upgradeLater(): void {
    this.candidate?.close();
    this.candidate = undefined;
    const delayMs = this.upgradeMs * (0.5 + this.options.random() / 2);
    this.upgradeMs = Math.min(this.upgradeMs * 2, UPGRADE_MAX_MS);
    this.upgradeTimer.start(delayMs, () => void this.upgrade());
  }

  private async upgrade(): Promise<void> {
    const { link } = this;
    const target = await this.options.target();
    const token = await this.options.tokens.get().catch(() => undefined);
    if (link !== this.link || this.state !== 'open') return;
    this.upgradeTimer.start(this.options.dialTimeoutMs, () => this.upgradeLater());
    const candidate = this.dial(target, this.choice.preferred, () => {
      if (candidate !== this.candidate) return;
      // It gets through. Cursors make the change safe at any moment.
      this.candidate = undefined;
      this.drop();
      this.link = candidate;
      this.set('connecting');
      void this.greet(candidate, token);
    });
    this.candidate = candidate;
  }

  private set(state: ConnectionState, error?: RejoinError, retryInMs?: number): void {
    this.state = state;
    this.hooks.changed(state, error, retryInMs);
  }
}
