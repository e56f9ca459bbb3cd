// Requests that wait for the frame that answers them.

import { RejoinError } from './errors.js';
import type { ServerFrame } from './protocol.js';

/** An edge answers in milliseconds; its own waits for the backplane end sooner. */
const TIMEOUT_MS = 10_000;

/** Called at once when the answer is read, so before any later frame: with the
 * frame, or with the error. */
export type OnReply = (frame: ServerFrame | undefined, error: RejoinError | undefined) => void;

export class Requests {
  private last = 0;
  private readonly open = new Map<number, { onReply: OnReply; timer: ReturnType<typeof setTimeout> }>();

  /** Takes the next number; `onReply` is called exactly once. */
  add(onReply: OnReply): number {
    this.last = (this.last % 0xffff_ffff) + 1;
    const req = this.last;
    const timer = setTimeout(() => {
      this.open.delete(req);
      onReply(undefined, new RejoinError('timeout', 'no answer came in time', { retryable: true }));
    }, TIMEOUT_MS);
    this.open.set(req, { onReply, timer });
    return req;
  }

  /** Whether the frame answers a request that was waiting. */
  settle(frame: ServerFrame): boolean {
    const request = this.open.get(frame.req ?? 0);
    if (!request) return false;
    clearTimeout(request.timer);
    this.open.delete(frame.req!);
    if (frame.error) request.onReply(undefined, RejoinError.from(frame.error));
    else request.onReply(frame, undefined);
    return true;
  }

  /** The connection ended: none of them will be answered. */
  fail(): void {
    const requests = [...this.open.values()];
    this.open.clear();
    for (const { onReply, timer } of requests) {
      clearTimeout(timer);
      onReply(undefined, new RejoinError('disconnected', 'the connection ended', { retryable: true }));
    }
  }
}
