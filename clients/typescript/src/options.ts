// What an application says to the client, and hears from it.

import type { RejoinError } from './errors.js';
import type { Message } from './message.js';
import type { OutboxEntry } from './outbox.js';
import type { Connected } from './protocol.js';
import type { Storage } from './storage/storage.js';
import type { Subscription } from './subscription.js';
import type { ImpliedOptions, Reset } from './subscription-options.js';
import type { GetToken } from './token.js';
import type { Transport, WebSocketLike } from './transport/link.js';

export interface RejoinOptions {
  /** Of any edge, or of the balancer before them: `https://rt.example.com`. */
  url: string;
  /** A token that does not need to be replaced. */
  token?: string;
  /** Called for the first token, before one expires, and when one was refused. */
  getToken?: GetToken;
  /** Whose cursors and outbox are kept here; default: the token's subject. */
  user?: string;
  /** Names this device among the user's; default: made once and stored. */
  device?: string;
  /** Default: IndexedDB where there is, else memory. */
  storage?: Storage;
  /** Listens to the user's own inbox, `user:<id>`, without its being named. */
  inbox?: ImpliedOptions;
  /** Listens to every room that the user is a member of, without their being
   * named; to one that was joined later, from the next connection on. */
  rooms?: ImpliedOptions;
  /** What to try, in this order; default `['websocket', 'sse', 'poll']`. */
  transports?: readonly Transport[];
  /** Default: the global one; in Node below 22, the package `ws`. */
  webSocket?: WebSocketLike;
  /** Default: the global one. */
  fetch?: typeof fetch;
  /** First and longest delay between attempts, until an edge asks for others;
   * default 1,000 and 30,000. */
  retryMinMs?: number;
  retryMaxMs?: number;
  /** How long an attempt may take; default 8,000. */
  dialTimeoutMs?: number;
  /** On a fallback transport, when the first one is tried again, doubling up
   * to ten minutes; default 30,000. */
  upgradeMs?: number;
  /** Publishes of one channel under way at once; default 1, which keeps their
   * order even when one of them has to be retried. */
  publishWindow?: number;
  /** Most messages that wait in the outbox; default 1,000. */
  outboxMax?: number;
  /** @internal for tests */
  random?: () => number;
  /** @internal for tests */
  now?: () => number;
}

export type RejoinState = 'connecting' | 'connected' | 'catchingUp' | 'live' | 'offline' | 'closed';

export interface StateEvent {
  state: RejoinState;
  previous: RejoinState;
  /** Why it is offline or closed. */
  error?: RejoinError;
  /** When the next attempt comes, if offline. */
  retryInMs?: number;
  /** Set while there is a connection. */
  transport?: Transport;
}

export interface ReceiptEvent {
  channel: string;
  device: string;
  delivered?: string;
  read?: string;
  unread: number;
}

export interface RejoinEvents extends Record<RejoinState, StateEvent> {
  /** Any change of state; each state is an event too. */
  state: StateEvent;
  /** A connection was accepted: which edge, as whom. */
  session: Connected;
  /** The inbox or a room is listened to, because `inbox` or `rooms` says so. */
  subscription: Subscription;
  /** Something went wrong that no promise tells of. */
  error: RejoinError;
  /** What some subscription missed cannot be had any more. */
  reset: Reset;
  /** A publish is pending, sent or failed. */
  outbox: OutboxEntry;
  /** A device of this user has received or read something; also how things
   * stand after subscribing. */
  receipt: ReceiptEvent;
}

export interface PublishOptions {
  /** Default: a new one. The same id never makes a second message. */
  id?: string;
  type?: string;
}

export interface HistoryOptions {
  /** As for a subscription; default `last:50`. */
  from?: string;
  /** Default 50. */
  limit?: number;
}

export interface HistoryPage<T = unknown> {
  messages: Message<T>[];
  /** Where the next page starts, or a subscription that follows. */
  cursor: string;
  /** Whether the page reaches the newest message. */
  live: boolean;
  /** Set when `from` cannot be continued. */
  reset?: Reset;
}
