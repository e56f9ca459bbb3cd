// What an application says to a subscription, and hears from it.

import type { RejoinError } from './errors.js';
import type { Message, Signal } from './message.js';

export interface Reset {
  channel: string;
  /** `expired`, `epoch`, `ahead` or `too_far_behind`. */
  reason: string;
  /** Where the subscription goes on. */
  head: string;
  /** The oldest position that can still be replayed, where that is known. */
  earliest?: string;
}

export interface SubscribeOptions<T = unknown> {
  /** Where to start when no cursor is stored: `tail` (default), `earliest`,
   * `acked`, `last:<n>` or a cursor. */
  from?: string;
  /** Replay at most so many messages, else reset to the head; 0: no bound. */
  maxCatchup?: number;
  /** Whether to store cursors, and to start from them (default true). */
  persist?: boolean;
  /** Of several tabs, let one handle this channel, with one common cursor. */
  oneTab?: boolean;
  /** Acknowledge to the edge as delivered what has been handled. */
  autoAck?: boolean;
  /** Called one message at a time; its promise is waited for. */
  onMessage?: (message: Message<T>) => unknown;
  /** Called in order with the messages; its promise is waited for. */
  onReset?: (reset: Reset) => unknown;
  /** Called in order, once everything before has been handled. */
  onLive?: (cursor: string) => unknown;
  onSignal?: (signal: Signal) => void;
  onUnread?: (unread: number) => void;
  onError?: (error: RejoinError) => void;
}

/** For channels that the edge names: it is known where they start. */
export type ImpliedOptions<T = unknown> = Omit<SubscribeOptions<T>, 'oneTab'>;

export type SubscriptionState = 'waiting' | 'catchingUp' | 'live' | 'failed' | 'closed';

export interface SubscriptionEvents {
  state: SubscriptionState;
  signal: Signal;
  unread: number;
  error: RejoinError;
}
