// What Node has besides: files, and `ws` where there is no global WebSocket.

import { Rejoin } from './rejoin.js';
import type { WebSocketLike } from './transport/link.js';

export * from './index.js';
export { FileStorage } from './storage/file.js';

Rejoin.loadWebSocket = async () => {
  try {
    const ws = (await import('ws')) as unknown as { WebSocket: WebSocketLike };
    return ws.WebSocket;
  } catch {
    // Not installed: the fallback transports work without it.
    return undefined;
  }
};
