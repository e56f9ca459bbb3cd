// @rejoin/client: messages that survive tunnels, sleeping tabs, deploys and
// reloads. README.md explains; docs/PROTOCOL.md is what it speaks.

export { Rejoin } from './rejoin.js';
export { RejoinError, type LocalCode } from './errors.js';
export { newId } from './uuid.js';
export { Subscription } from './subscription.js';
export type { ImpliedOptions, Reset, SubscribeOptions, SubscriptionEvents, SubscriptionState } from './subscription-options.js';
export type { Message, Signal } from './message.js';
export type { OutboxEntry, PublishResult } from './outbox.js';
export type {
  HistoryOptions,
  HistoryPage,
  PublishOptions,
  ReceiptEvent,
  RejoinEvents,
  RejoinOptions,
  RejoinState,
  StateEvent,
} from './options.js';
export type { GetToken, TokenReason } from './token.js';
export type { Transport, WebSocketLike } from './transport/link.js';
export type { Storage } from './storage/storage.js';
export { MemoryStorage } from './storage/memory.js';
export { IndexedDbStorage } from './storage/indexeddb.js';
export { AsyncStorage, type AsyncStorageLike } from './storage/async-storage.js';
