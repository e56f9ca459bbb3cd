// The HTTP API of an edge (docs/PROTOCOL.md), as far as the client uses it.

import { RejoinError } from './errors.js';
import type { ErrorBody, Publish } from './protocol.js';

export interface HttpTarget {
  url: string;
  fetch: typeof fetch;
}

export interface HttpRequest {
  method?: string;
  body?: string | Uint8Array;
  signal?: AbortSignal;
  accept?: string;
}

/** The path of what belongs to a channel, and of a query. */
export function channelPath(channel: string, what: string, query: Record<string, string | number | undefined> = {}): string {
  return `/v1/channels/${encodeURIComponent(channel)}/${what}${queryOf(query)}`;
}

export function queryOf(query: Record<string, string | number | undefined>): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const text = pairs.map(([key, value]) => `${key}=${encodeURIComponent(value!)}`).join('&');
  return text && `?${text}`;
}

/** Sends a request and throws what the edge answers with if it is an error. */
export async function request(target: HttpTarget, path: string, token: string | undefined, options: HttpRequest = {}): Promise<Response> {
  const headers: Record<string, string> = {};
  if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
  if (options.accept) headers['accept'] = options.accept;
  const { fetch } = target;
  let response: Response;
  try {
    response = await fetch(target.url + path, {
      method: options.method ?? 'GET',
      headers,
      cache: 'no-store',
      ...(options.body === undefined ? {} : { body: options.body as BodyInit }),
      ...(options.signal ? { signal: options.signal } : {}),
    });
  } catch (error) {
    throw new RejoinError('disconnected', 'the edge was not reached', { retryable: true, cause: error });
  }
  if (response.ok) return response;
  const body = (await response.json().catch(() => ({}))) as { error?: ErrorBody };
  // A proxy in between answers without our body; its 5xx and 429 pass.
  throw RejoinError.from(
    body.error ?? {
      code: response.status === 401 ? 'unauthorized' : 'unavailable',
      message: `HTTP status ${response.status}`,
      retryable: response.status >= 500 || response.status === 429 || response.status === 408,
    },
  );
}

/** The bytes of a payload as HTTP carries it: as they are. */
export function payload(body: Pick<Publish, 'data' | 'data_base64'>): string | Uint8Array {
  return body.data_base64 === undefined ? JSON.stringify(body.data ?? null) : fromBase64(body.data_base64);
}

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
