// What the inspector knows of its channels, whichever way the frames come: a cursor each, and what was missing.
// The protocol is done by hand here (docs/PROTOCOL.md), so that every frame can be seen. Applications use the client
// instead, which does this and much more.

export class Wire {
  constructor({ onFrame, onState, onChange }) {
    Object.assign(this, { onFrame, onState, onChange });
    /** channel → { from, cursor, head, shard, live, received, missing, resets } */
    this.channels = new Map();
  }

  /** A channel from `from`, whatever was known of it. */
  begin(channel, from) {
    this.channels.set(channel, { from, received: 0, missing: 0, resets: 0 });
  }

  stale() {
    for (const state of this.channels.values()) state.live = false;
  }

  /** Takes a frame in. */
  hear(frame) {
    this.onFrame('in', frame);
    if (frame.ping) {
      for (const state of this.channels.values()) {
        if (state.live) state.cursor = frame.ping.positions?.[state.shard] ?? state.cursor;
      }
    }
    const body = frame.subscribed ?? frame.messages ?? frame.live ?? frame.reset ?? frame.unsubscribed;
    const state = this.channels.get(body?.channel);
    if (state) this.move(state, frame);
    if (state || frame.ping) this.onChange();
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
