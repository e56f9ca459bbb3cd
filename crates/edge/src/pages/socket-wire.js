// As a user: one WebSocket with a token, and everything that a client can say.

import { Wire } from './wire.js';

export class SocketWire extends Wire {
  requests = 0;

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
    this.stale();
    this.onState('closed', `${code} ${reason}`.trim());
    this.onChange();
  }

  hear(frame) {
    if (frame.connected) {
      const { user, edge, session } = (this.connected = frame.connected);
      this.onState('connected', `${user} on ${edge}, session ${session}`);
      this.onChange();
    }
    super.hear(frame);
    if (frame.ping) this.send({ pong: {} });
  }

  /** Listens from `from`; leaves first where it listens already. */
  subscribe(channel, from, maxCatchup = 0) {
    if (this.channels.has(channel) && this.open) this.request({ unsubscribe: { channel } });
    this.begin(channel, from);
    if (this.open) this.request({ subscribe: { channel, from, ...(maxCatchup && { max_catchup: maxCatchup }) } });
    this.onChange();
  }

  unsubscribe(channel) {
    this.channels.delete(channel);
    if (this.open) this.request({ unsubscribe: { channel } });
    this.onChange();
  }

  publish(message) {
    return this.request({ publish: message });
  }

  signal(signal) {
    return this.send({ signal });
  }

  request(body) {
    return this.send({ req: ++this.requests, ...body });
  }

  /** Whether there was a connection to send it on. */
  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    this.onFrame('out', frame);
    return true;
  }
}
