// One thing that will happen, at most once, unless it is started anew or stopped.

/** Longer, and setTimeout fires at once. */
const MAX_MS = 2 ** 31 - 1;

export class Timer {
  private timer: ReturnType<typeof setTimeout> | undefined;

  start(delayMs: number, action: () => void): void {
    this.stop();
    this.timer = setTimeout(action, Math.min(Math.max(delayMs, 0), MAX_MS));
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }
}
