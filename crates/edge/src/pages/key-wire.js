// With an API key: one stream of server-sent events for all channels, and publishing by POST. The key reads and
// publishes what its `read` and `publish` say; that it is administrative gives it no message.

import { Wire } from './wire.js';

/** Between two attempts, until the edge says otherwise. */
const RETRY_MS = 1_000;

export class KeyWire extends Wire {
  open = false;
  retryMs = RETRY_MS;

  /** `admin`: of admin.js. */
  constructor(events, admin, onNote) {
    super(events);
    Object.assign(this, { admin, onNote });
  }

  /** Listens to every channel from its cursor. */
  connect() {
    this.open = true;
    void this.#listen();
  }

  close() {
    this.open = false;
    this.stopped?.abort();
    this.stale();
    this.onState('closed');
    this.onChange();
  }

  subscribe(channel, from) {
    this.begin(channel, from);
    if (this.open) void this.#listen();
    this.onChange();
  }

  unsubscribe(channel) {
    this.channels.delete(channel);
    if (this.open) void this.#listen();
    this.onChange();
  }

  publish({ channel, id, type, data }) {
    const headers = { 'Rejoin-Id': id, ...(type && { 'Rejoin-Type': type }) };
    return this.#post(`/v1/channels/${encodeURIComponent(channel)}/messages`, headers, data, { publish: { channel, id, type, data } }, 'published');
  }

  signal({ channel, type, data }) {
    const query = type ? `?type=${encodeURIComponent(type)}` : '';
    return this.#post(`/v1/channels/${encodeURIComponent(channel)}/signals${query}`, {}, data, { signal: { channel, type, data } });
  }

  async #post(path, headers, data, frame, answered) {
    this.onFrame('out', frame);
    try {
      const body = await this.admin.json(path, { method: 'POST', headers, body: data });
      if (answered) this.onFrame('in', { [answered]: body });
    } catch ({ code, message }) {
      this.onFrame('in', { error: { code, message } });
    }
    return true;
  }

  /** One stream after another, each from where the one before ended, until something else is wanted. */
  async #listen() {
    this.stopped?.abort();
    const stopped = (this.stopped = new AbortController());
    const { signal } = stopped;
    while (this.open && !signal.aborted && this.channels.size > 0) {
      this.onState('connecting');
      try {
        await this.#stream(signal);
        if (!signal.aborted) this.onNote('the stream has ended');
      } catch (error) {
        if (signal.aborted) return;
        this.onNote(`no stream: ${error.message}`);
      }
      if (signal.aborted) return;
      this.stale();
      this.onChange();
      await new Promise((resolve) => setTimeout(resolve, this.retryMs));
    }
    if (this.open && !signal.aborted) this.onState('connected', 'nothing to listen to yet');
  }

  async #stream(signal) {
    const channels = [...this.channels.keys()];
    const from = [...this.channels.values()].map((state) => state.cursor ?? state.from);
    const path = `/v1/events?channels=${channels.map(encodeURIComponent)}&from=${from.map(encodeURIComponent)}`.replaceAll('%3A', ':');
    this.onNote(`GET ${path}`);
    const answer = await this.admin.fetch(path, { signal, headers: { Accept: 'text/event-stream' } });
    if (!answer.ok) {
      const { error = {} } = await answer.json().catch(() => ({}));
      // One channel that is refused refuses all: the others go on without it.
      if (error.channel && !error.retryable) this.channels.delete(error.channel);
      else if (answer.status === 400 || answer.status === 403) this.channels.clear();
      throw new Error(error.message ?? `HTTP ${answer.status}`);
    }
    this.onState('connected', `${this.admin.self.key}, by server-sent events`);
    let text = '';
    for await (const chunk of readable(answer.body.pipeThrough(new TextDecoderStream()))) {
      text += chunk;
      const events = text.split('\n\n');
      text = events.pop();
      for (const event of events) this.#event(event);
    }
  }

  #event(block) {
    for (const line of block.split('\n')) {
      const [field, value] = [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)];
      if (field === 'retry') this.retryMs = Number(value);
      if (field === 'data') this.hear(JSON.parse(value));
    }
  }
}

/** Not every browser iterates over streams. */
async function* readable(stream) {
  const reader = stream.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}
