import type { Link, LinkEvents, LinkTarget, Transport } from './link.js';
import { PollLink } from './poll.js';
import { SseLink } from './sse.js';
import { dialWebSocket } from './websocket.js';

export function dial(transport: Transport, target: LinkTarget, events: LinkEvents): Link {
  switch (transport) {
    case 'websocket':
      return dialWebSocket(target, events);
    case 'sse':
      return new SseLink(target, events);
    case 'poll':
      return new PollLink(target, events);
  }
}
