// What can go wrong, by code: the edge's codes (docs/PROTOCOL.md) and ours.

import type { ErrorBody } from './protocol.js';

/** Codes that the client itself gives, besides those of the edge. */
export type LocalCode =
  /** The connection ended before the answer came. */
  | 'disconnected'
  /** The client was closed. */
  | 'closed'
  /** No answer came in time. */
  | 'timeout'
  /** The application's handler threw; the message is handed to it again. */
  | 'handler_failed'
  /** The edge skipped a message: a defect. It has been asked for again. */
  | 'gap'
  /** The outbox holds as many messages as it may. */
  | 'outbox_full'
  /** The storage refused to read or write. */
  | 'storage_failed'
  /** The token is another user's than what is stored here. */
  | 'user_changed'
  /** There is no token, or `getToken` failed. */
  | 'no_token';

export class RejoinError extends Error {
  override readonly name = 'RejoinError';
  /** What went wrong. */
  readonly code: string;
  /** Whether the same may succeed later; the client retries by itself. */
  readonly retryable: boolean;
  /** At least so long to wait before trying again; 0: not said. */
  readonly retryAfterMs: number;
  /** The channel that it is about, if it is about one. */
  readonly channel: string | undefined;

  constructor(
    code: LocalCode | (string & {}),
    message: string,
    more: { retryable?: boolean; retryAfterMs?: number; channel?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.retryable = more.retryable ?? false;
    this.retryAfterMs = more.retryAfterMs ?? 0;
    this.channel = more.channel;
  }

  /** @internal */
  static from(body: ErrorBody): RejoinError {
    return new RejoinError(body.code ?? 'internal', body.message ?? '', {
      retryable: body.retryable ?? false,
      retryAfterMs: body.retry_after_ms ?? 0,
      channel: body.channel,
    });
  }

  /** @internal */
  static of(error: unknown, code: LocalCode): RejoinError {
    if (error instanceof RejoinError) return error;
    const message = error instanceof Error ? error.message : String(error);
    return new RejoinError(code, message, { cause: error });
  }
}

/** Close codes that the client acts on; the ranges decide about all others. */
export const CLOSE = { tokenExpired: 4007, unauthorized: 4501 } as const;

/** Whether a connection closed with this code comes back. */
export function comesBack(code: number): boolean {
  return code < 4500 || code > 4999;
}
