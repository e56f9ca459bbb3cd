import type { ClientFrame, ServerFrame } from '../protocol.js';
import type { Link, LinkEvents, LinkTarget } from './link.js';

const NO_EVENT = 1006;

/** Opens a WebSocket; frames sent before it is open wait for that. */
export function dialWebSocket(target: LinkTarget, events: LinkEvents): Link {
  const waiting: string[] = [];
  let opened = false;
  let over = false;
  const end = (code: number, reason: string) => {
    if (over) return;
    over = true;
    events.onClosed({ code, reason, opened, retryAfterMs: 0 });
  };
  if (!target.webSocket) {
    queueMicrotask(() => end(NO_EVENT, 'there is no WebSocket here'));
    return { transport: 'websocket', send: () => {}, close: () => (over = true) };
  }
  // http → ws, https → wss.
  const url = `${target.url.replace(/^http/, 'ws')}/v1/connect`;
  const socket = new target.webSocket(url, ['rejoin.v1.json']);
  socket.onopen = () => {
    if (over) return;
    opened = true;
    for (const text of waiting.splice(0)) socket.send(text);
    events.onOpen();
  };
  socket.onmessage = ({ data }) => {
    if (over || typeof data !== 'string') return;
    events.onFrame(JSON.parse(data) as ServerFrame);
  };
  socket.onclose = ({ code, reason }) => end(code, reason);
  // `close` follows and says more; without a listener `ws` would throw.
  socket.onerror = () => {};
  return {
    transport: 'websocket',
    send(frame: ClientFrame) {
      const text = JSON.stringify(frame);
      if (opened) socket.send(text);
      else waiting.push(text);
    },
    close() {
      over = true;
      socket.close(1000);
    },
  };
}
