// Generated from proto/rejoin/v1/frames.proto by scripts/generate-protocol.mjs.
// Do not edit: change the definition and run `npm run generate`.
//
// Every field is optional: on the wire, empty means the same as left out.

/** What a client sends. */
export interface ClientFrame {
  /** Chosen by the client and echoed in the reply; 0 asks for no echo. */
  req?: number;
  /** What the frame says. The first frame of a connection: who is there and what it listens to. */
  connect?: Connect;
  /** Listen to a channel. */
  subscribe?: Subscribe;
  /** Stop listening to a channel. */
  unsubscribe?: Unsubscribe;
  /** Store and deliver a message. */
  publish?: Publish;
  /** Tell those who listen now, without storing it. */
  signal?: SendSignal;
  /** How far this device has come. */
  ack?: Ack;
  /** Ask who is present on a channel. */
  presence?: GetPresence;
  /** Replace the token of this connection. */
  refresh?: Refresh;
  /** The answer to a ping. */
  pong?: Pong;
}

/** What a ClientFrame says: it has exactly one of these. */
export type ClientFrameKey =
  | 'connect'
  | 'subscribe'
  | 'unsubscribe'
  | 'publish'
  | 'signal'
  | 'ack'
  | 'presence'
  | 'refresh'
  | 'pong';

/** The first frame of a connection. */
export interface Connect {
  /** A JWT; empty where the Authorization header carried it. */
  token?: string;
  /** Names this device among the user's, for receipts. */
  device?: string;
  /** Channels to subscribe to at once. */
  subscriptions?: Subscribe[];
  /** Subscribe to the user's own inbox too. */
  inbox?: boolean;
  /** Subscribe to all rooms that the user is a member of too. */
  rooms?: boolean;
}

/** Listen to a channel. */
export interface Subscribe {
  /** `namespace:id`. */
  channel?: string;
  /** Where to start: `tail` (default), `earliest`, `acked`, `last:<n>`, a cursor. */
  from?: string;
  /** Replay at most this many messages, else reset to the head; 0: no bound. */
  max_catchup?: number;
}

/** Stop listening to a channel. */
export interface Unsubscribe {
  /** The channel. */
  channel?: string;
}

/** Store and deliver a message. */
export interface Publish {
  /** Made when the user pressed send, a UUIDv7: retries carry the same id. */
  id?: string;
  /** Where to. */
  channel?: string;
  /** The application's type of the message. */
  type?: string;
  /** The payload. */
  data?: unknown;
  /** The payload, where its bytes are not JSON. */
  data_base64?: string;
  /** W3C trace context, passed on to subscribers. */
  traceparent?: string;
}

/** Tell those who listen now. */
export interface SendSignal {
  /** Where to. */
  channel?: string;
  /** The application's type of the signal. */
  type?: string;
  /** The payload. */
  data?: unknown;
  /** The payload, where its bytes are not JSON. */
  data_base64?: string;
}

/** How far this device has come; cumulative. */
export interface Ack {
  /** The channel. */
  channel?: string;
  /** Everything up to this cursor has been stored by the device. */
  delivered?: string;
  /** Everything up to this cursor has been seen by the user. */
  read?: string;
}

/** Ask who is present on a channel. */
export interface GetPresence {
  /** The channel. */
  channel?: string;
}

/** Replace the token of this connection. */
export interface Refresh {
  /** A new JWT of the same user. */
  token?: string;
}

/** The answer to a ping. */
export interface Pong {}

/** What the edge sends. */
export interface ServerFrame {
  /** The `req` of the frame that this answers; 0 if it answers none. */
  req?: number;
  /** What the frame says. The connection is open. */
  connected?: Connected;
  /** A subscription has started. */
  subscribed?: Subscribed;
  /** A subscription has ended. */
  unsubscribed?: Unsubscribed;
  /** Messages of one channel, in order. */
  messages?: Messages;
  /** Everything up to here has been replayed; from now on it is live. */
  live?: Live;
  /** Continuity cannot be proved: what is between is lost to this client. */
  reset?: Reset;
  /** A published message is stored. */
  published?: Published;
  /** A request failed. */
  error?: ErrorBody;
  /** A signal of somebody else. */
  signal?: Signal;
  /** Who is present on a channel. */
  presence?: Presence;
  /** What the user has read, and how much is unread now. */
  receipt?: Receipt;
  /** The new token is in force. */
  refreshed?: Refreshed;
  /** The token is about to expire: refresh it. */
  token_expiring?: TokenExpiring;
  /** Reconnect elsewhere soon. */
  goaway?: Goaway;
  /** Heartbeat and positions. */
  ping?: Ping;
}

/** What a ServerFrame says: it has exactly one of these. */
export type ServerFrameKey =
  | 'connected'
  | 'subscribed'
  | 'unsubscribed'
  | 'messages'
  | 'live'
  | 'reset'
  | 'published'
  | 'error'
  | 'signal'
  | 'presence'
  | 'receipt'
  | 'refreshed'
  | 'token_expiring'
  | 'goaway'
  | 'ping';

/** The connection is open. */
export interface Connected {
  /** Names this connection in the operator's logs. */
  session?: string;
  /** Who the token says the client is. */
  user?: string;
  /** Which edge this is. */
  edge?: string;
  /** A ping comes at least this often. */
  ping_ms?: number;
  /** What this edge accepts. */
  limits?: Limits;
  /** How to space reconnects. */
  retry?: Retry;
  /** When the token expires; 0: never. */
  expires_ms?: number;
}

/** What an edge accepts from a client. */
export interface Limits {
  /** Longest payload of a message. */
  message_bytes?: number;
  /** Most subscriptions of a connection. */
  subscriptions?: number;
}

/** How to space reconnects: exponential from min to max, with full jitter. */
export interface Retry {
  /** The first delay is drawn from 0 to this. */
  min_ms?: number;
  /** No delay is longer than this. */
  max_ms?: number;
}

/** A subscription has started. */
export interface Subscribed {
  /** The channel. */
  channel?: string;
  /** Whose positions in `ping` this channel follows. */
  shard?: number;
  /** The epoch of `head`. */
  epoch?: string;
  /** Where this subscription starts: the client's position from now on. */
  cursor?: string;
  /** The newest position of the channel's shard. */
  head?: string;
  /** Whether there is something to replay before `live`. */
  replay?: boolean;
  /** Messages of this channel that the user has not read, where that is known. */
  unread?: number;
}

/** A subscription has ended. */
export interface Unsubscribed {
  /** The channel. */
  channel?: string;
  /** Empty when the client asked for it; `removed` when the right was lost. */
  code?: string;
  /** For a developer's eyes. */
  message?: string;
}

/** Messages of one channel, in order. */
export interface Messages {
  /** The channel. */
  channel?: string;
  /** The epoch of all of them: a message's cursor is `<epoch>-<seq>`. */
  epoch?: string;
  /** At least one. */
  messages?: WireMessage[];
}

/** One stored message. */
export interface WireMessage {
  /** Its sequence; increasing, with gaps. */
  seq?: number;
  /** The sequence of the channel's message before it; 0: not known. */
  prev?: number;
  /** The publisher's id for it. */
  id?: string;
  /** The application's type of it. */
  type?: string;
  /** The user who published it; empty for services. */
  sender?: string;
  /** When it was stored. */
  time?: number;
  /** The payload. */
  data?: unknown;
  /** The payload, where its bytes are not JSON. */
  data_base64?: string;
  /** W3C trace context of the publisher. */
  traceparent?: string;
}

/** Everything up to here has been replayed. */
export interface Live {
  /** The channel. */
  channel?: string;
  /** The client's position from now on. */
  cursor?: string;
}

/** What is between the client's position and the head is lost to this client. */
export interface Reset {
  /** The channel. */
  channel?: string;
  /** `expired`, `epoch`, `ahead` or `too_far_behind`. */
  reason?: string;
  /** The client's position from now on: the subscription goes on here. */
  head?: string;
  /** The oldest position that can still be replayed, where that is known. */
  earliest?: string;
}

/** A published message is stored. */
export interface Published {
  /** The id that it was published under. */
  id?: string;
  /** The channel. */
  channel?: string;
  /** Its position, for ever. */
  cursor?: string;
  /** Whether an earlier publish under the same id had stored it. */
  duplicate?: boolean;
}

/** A request failed. */
export interface ErrorBody {
  /** One of the error codes. */
  code?: string;
  /** For a developer's eyes. */
  message?: string;
  /** Whether the same request may succeed later. */
  retryable?: boolean;
  /** Wait this long before trying again. */
  retry_after_ms?: number;
  /** The channel that it is about, if it is about one. */
  channel?: string;
}

/** A signal of somebody else. */
export interface Signal {
  /** The channel. */
  channel?: string;
  /** The application's type of it. */
  type?: string;
  /** Who sent it; empty for services. */
  sender?: string;
  /** The payload. */
  data?: unknown;
  /** The payload, where its bytes are not JSON. */
  data_base64?: string;
}

/** Who is present on a channel. */
export interface Presence {
  /** The channel. */
  channel?: string;
  /** Users with at least one live subscription. */
  users?: string[];
  /** There may be others: an edge did not answer, or they are too many. */
  partial?: boolean;
}

/** What the user has read, and how much is unread now. */
export interface Receipt {
  /** The channel. */
  channel?: string;
  /** Which device. */
  device?: string;
  /** What it has stored. */
  delivered?: string;
  /** What the user has seen. */
  read?: string;
  /** Messages of this channel that the user has not read. */
  unread?: number;
}

/** The new token is in force. */
export interface Refreshed {
  /** When it expires; 0: never. */
  expires_ms?: number;
}

/** The token is about to expire. */
export interface TokenExpiring {
  /** In so many milliseconds. */
  expires_in_ms?: number;
}

/** Reconnect elsewhere soon. */
export interface Goaway {
  /** `drain` or `lifetime`. */
  reason?: string;
  /** Wait this long before reconnecting. */
  retry_after_ms?: number;
}

/** Heartbeat and positions. */
export interface Ping {
  /** By shard: every live subscription of that shard may move its cursor here. */
  positions?: Record<string, string>;
}
