// A link carries frames to and from one edge, over whatever the network lets
// through. It never reconnects: when it ends it says so, once.

import type { ClientFrame, ServerFrame } from '../protocol.js';

export type Transport = 'websocket' | 'sse' | 'poll';

export interface LinkClosed {
  /** A WebSocket close code, or the one that a status of HTTP amounts to. */
  code: number;
  reason: string;
  /** Whether it ever carried a frame: if not, the network may block it. */
  opened: boolean;
  /** At least so long to wait before coming back; 0: not said. */
  retryAfterMs: number;
}

export interface LinkEvents {
  /** It can carry frames now. */
  onOpen(): void;
  onFrame(frame: ServerFrame): void;
  /** Bytes arrived that are not a frame: the other side is alive. */
  onAlive(): void;
  onClosed(closed: LinkClosed): void;
}

export interface Link {
  readonly transport: Transport;
  send(frame: ClientFrame): void;
  /** Ends it without a further event. */
  close(): void;
}

/** What a link needs of the world. */
export interface LinkTarget {
  /** `http(s)://host[:port][/path]`, without a slash at the end. */
  url: string;
  fetch: typeof fetch;
  webSocket: WebSocketLike | undefined;
}

/** As much of a WebSocket implementation as the client uses. */
export type WebSocketLike = new (url: string, protocols: string[]) => {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number): void;
};
