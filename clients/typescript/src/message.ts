import { fromBase64 } from './http.js';
import type { Signal as WireSignal, WireMessage } from './protocol.js';

export interface Message<T = unknown> {
  channel: string;
  /** Its position, for ever: store it with your effect, or let the client. */
  cursor: string;
  /** What it was published under; absent on messages of foreign programs. */
  id?: string;
  type?: string;
  /** Who published it; absent for services. */
  sender?: string;
  /** When it was stored, in milliseconds since the Unix epoch. */
  time: number;
  data: T;
  /** The payload, where it is not JSON; then `data` is undefined. */
  bytes?: Uint8Array;
  /** Whether it was published before the subscription was live. */
  replayed: boolean;
  traceparent?: string;
}

export interface Signal<T = unknown> {
  channel: string;
  type?: string;
  sender?: string;
  data: T;
  bytes?: Uint8Array;
}

export function toMessage<T>(channel: string, cursor: string, wire: WireMessage, replayed: boolean): Message<T> {
  const { id, type, sender, time = 0, traceparent } = wire;
  return {
    channel,
    cursor,
    ...(id !== undefined && { id }),
    ...(type !== undefined && { type }),
    ...(sender !== undefined && { sender }),
    time,
    ...content<T>(wire),
    replayed,
    ...(traceparent !== undefined && { traceparent }),
  };
}

export function toSignal<T>(wire: WireSignal): Signal<T> {
  const { channel = '', type, sender } = wire;
  return { channel, ...(type !== undefined && { type }), ...(sender !== undefined && { sender }), ...content<T>(wire) };
}

function content<T>(wire: { data?: unknown; data_base64?: string }): { data: T; bytes?: Uint8Array } {
  const data = wire.data as T;
  return wire.data_base64 === undefined ? { data } : { data, bytes: fromBase64(wire.data_base64) };
}
