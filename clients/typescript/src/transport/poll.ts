import { queryOf, request } from '../http.js';
import type { ServerFrame } from '../protocol.js';
import { HttpLink } from './http-link.js';

/** How long an edge may hold a request back: under the 60 s idle timeout of
 * common proxies, with one to spare. */
const WAIT_MS = 25_000;

/** Long-poll: plain requests that are answered when there is something. */
export class PollLink extends HttpLink {
  readonly transport = 'poll';

  protected async read(channels: string[], signal: AbortSignal): Promise<void> {
    // The first is answered at once, and so tells that this works at all.
    for (let wait_ms = 0; !signal.aborted; wait_ms = WAIT_MS) {
      const from = channels.map((channel) => this.from.get(channel)).join();
      const path = `/v1/poll${queryOf({ channels: channels.join(), from, device: this.device, wait_ms })}`;
      const response = await request(this.target, path, this.token, { signal });
      const { frames, cursors } = (await response.json()) as { frames: ServerFrame[]; cursors: string[] };
      if (signal.aborted) return;
      this.alive();
      for (const frame of frames) this.pass(frame);
      this.advance(channels, cursors);
    }
  }
}
