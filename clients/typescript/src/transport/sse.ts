import { queryOf, request } from '../http.js';
import type { ServerFrame } from '../protocol.js';
import { HttpLink } from './http-link.js';

/** Server-sent events, read with `fetch`: `EventSource` cannot carry a header. */
export class SseLink extends HttpLink {
  readonly transport = 'sse';

  protected async read(channels: string[], signal: AbortSignal): Promise<void> {
    const from = channels.map((channel) => this.from.get(channel)).join();
    const path = `/v1/events${queryOf({ channels: channels.join(), from, device: this.device })}`;
    const response = await request(this.target, path, this.token, { signal, accept: 'text/event-stream' });
    const reader = response.body?.getReader();
    if (!reader) throw new TypeError('fetch does not stream here');
    const decoder = new TextDecoder();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      this.alive();
      text += decoder.decode(value, { stream: true }).replace(/\r/g, '');
      const events = text.split('\n\n');
      text = events.pop()!;
      for (const event of events) {
        if (signal.aborted) return;
        this.take(channels, event);
      }
    }
  }

  private take(channels: string[], event: string): void {
    let data = '';
    let id: string | undefined;
    for (const line of event.split('\n')) {
      const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
      if (field === 'data') data += value;
      else if (field === 'id') id = value;
    }
    if (data) this.pass(JSON.parse(data) as ServerFrame);
    if (id) this.advance(channels, id.split(','));
  }
}
