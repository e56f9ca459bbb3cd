// The protocol by hand (docs/PROTOCOL.md), so that every frame can be seen: one connection, its requests, and a cursor
// per channel. Applications use the client instead, which does this and much more.

export class Wire {
  constructor({ onFrame, onState, onChange }) {
    Object.assign(this, { onFrame, onState, onChange });
    /** channel → { cursor, head, shard, epoch, live, received, missing, resets } */
    this.channels = new Map();
    this.requests = 0;
  }

  get open() {
    return this.connected !== undefined;
  }

  /** Connects and resumes every subscription from its cursor. */
  connect(token) {
    this.close();
    const url = `${location.origin.replace(/^http/, 'ws')}/v1/connect`;
    const socket = new WebSocket(url, ['rejoin.v1.json']);
    this.socket = socket;
    this.onState('connecting');
    const subscriptions = [...this.channels].map(([channel, { cursor, from }]) => ({ channel, from: cursor ?? from }));
    socket.onopen = () => this.request({ connect: { token, device: 'inspector', subscriptions } });
    socket.onmessage = ({ data }) => {
      if (socket === this.socket) this.hear(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.socket) this.lost(code, reason);
    };
  }

  close() {
    const { socket } = this;
    if (!socket) return;
    this.lost(1000, 'closed here');
    socket.close(1000);
  }

  lost(code, reason) {
    this.socket = this.connected = undefined;
    for (const state of this.channels.values()) state.live = false;
    this.onState('closed', `${code} ${reason}`.trim());
    this.onChange();
  }

  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    this.onFrame('out', frame);
    return true;
  }

  request(body) {
    return this.send({ req: ++this.requests, ...body });
  }

  /** Listens from `from`; leaves first where it listens already. */
  subscribe(channel, from, maxCatchup = 0) {
    if (this.channels.has(channel) && this.open) this.request({ unsubscribe: { channel } });
    this.channels.set(channel, { from, received: 0, missing: 0, resets: 0 });
    if (this.open) this.request({ subscribe: { channel, from, ...(maxCatchup && { max_catchup: maxCatchup }) } });
    this.onChange();
  }

  unsubscribe(channel) {
    this.channels.delete(channel);
    if (this.open) this.request({ unsubscribe: { channel } });
    this.onChange();
  }

  hear(frame) {
    this.onFrame('in', frame);
    if (frame.connected) {
      this.connected = frame.connected;
      this.onState('connected');
    }
    if (frame.ping) {
      this.send({ pong: {} });
      for (const state of this.channels.values()) {
        if (state.live) state.cursor = frame.ping.positions?.[state.shard] ?? state.cursor;
      }
    }
    const body = frame.subscribed ?? frame.messages ?? frame.live ?? frame.reset ?? frame.unsubscribed;
    const state = this.channels.get(body?.channel);
    if (state) this.move(state, frame);
    if (state || frame.ping || frame.connected) this.onChange();
  }

  move(state, { subscribed, messages, live, reset, unsubscribed }) {
    if (subscribed) Object.assign(state, { cursor: subscribed.cursor, head: subscribed.head, shard: subscribed.shard ?? 0, live: false });
    if (live) Object.assign(state, { cursor: live.cursor, live: true });
    if (reset) Object.assign(state, { cursor: reset.head, resets: state.resets + 1, live: false });
    if (unsubscribed) state.live = false;
    for (const { seq, prev = 0 } of messages?.messages ?? []) {
      const [epoch, at] = (state.cursor ?? '').split('-');
      // The edge says what came before; if that was not seen, it is missing.
      if (epoch === messages.epoch && prev > Number(at)) state.missing++;
      state.cursor = `${messages.epoch}-${seq}`;
      state.received++;
    }
  }
}
