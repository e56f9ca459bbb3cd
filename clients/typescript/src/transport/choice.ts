// Which transport to try next. Pure: it hears what worked and what did not.

import type { Transport } from './link.js';

/** Failures in a row that count as "this network blocks it" … */
const PATIENCE = 2;
/** … and for a transport that has worked here before: rather it is the edges
 * that are away, and a fleet of clients should not come back over a fallback. */
const PATIENCE_PROVEN = 6;

export class TransportChoice {
  private index = 0;
  private failures = 0;
  private readonly proven = new Set<Transport>();

  constructor(private readonly transports: readonly Transport[]) {}

  get current(): Transport {
    return this.transports[this.index]!;
  }

  get preferred(): Transport {
    return this.transports[0]!;
  }

  /** It carried frames. */
  worked(transport: Transport): void {
    this.index = this.transports.indexOf(transport);
    this.failures = 0;
    this.proven.add(transport);
  }

  /** It never carried a frame this time. */
  failed(): void {
    const patience = this.proven.has(this.current) ? PATIENCE_PROVEN : PATIENCE;
    if (++this.failures < patience) return;
    this.failures = 0;
    this.index = (this.index + 1) % this.transports.length;
  }

  /** Another network may block other things. */
  startOver(): void {
    this.index = 0;
    this.failures = 0;
    this.proven.clear();
  }
}
