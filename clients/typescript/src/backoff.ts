// How long to wait before trying again: exponential with full jitter, so that
// clients that lost an edge together do not come back together
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

/** Doubling stops here; far past any sensible maximum. */
const MAX_EXPONENT = 20;

export class Backoff {
  private attempt = 0;

  constructor(
    private minMs: number,
    private maxMs: number,
    private readonly random: () => number,
  ) {}

  /** The next delay in milliseconds; at least `hintMs`, which a server gave. */
  next(hintMs = 0): number {
    const ceiling = Math.min(this.maxMs, this.minMs * 2 ** this.attempt);
    this.attempt = Math.min(this.attempt + 1, MAX_EXPONENT);
    return hintMs + this.random() * (hintMs > 0 ? this.minMs : ceiling);
  }

  /** It worked: the next failure starts over. */
  reset(): void {
    this.attempt = 0;
  }

  /** What the server asks for. */
  limits(minMs: number, maxMs: number): void {
    if (minMs > 0) this.minMs = minMs;
    if (maxMs > 0) this.maxMs = Math.max(maxMs, this.minMs);
  }
}
