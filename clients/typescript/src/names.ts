// Names as docs/PROTOCOL.md allows them, checked here because one bad name in
// `connect` makes the edge refuse all of it.

import { RejoinError } from './errors.js';

const CHANNEL = /^[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_-]{1,64}$/;
const FROM = /^(tail|earliest|acked|last:[1-9]\d{0,8}|[0-9a-f]{16}-(0|[1-9]\d{0,18}))$/;
const ID = /^[\w.:-]{1,128}$/;
const TYPE = /^[\w.:-]{0,64}$/;

export function checkChannel(channel: string): void {
  if (!CHANNEL.test(channel)) throw new RejoinError('bad_channel', `not namespace:id: ${channel}`);
}

export function checkFrom(from: string | undefined): void {
  if (from !== undefined && !FROM.test(from)) throw new RejoinError('bad_cursor', `not a cursor, tail, earliest, acked or last:<n>: ${from}`);
}

export function checkPublish(channel: string, id: string | undefined, type: string | undefined): void {
  checkChannel(channel);
  if (id !== undefined && !ID.test(id)) throw new RejoinError('bad_request', 'an id has 1 to 128 of A-Z a-z 0-9 _ . : -', { channel });
  if (type !== undefined && !TYPE.test(type)) throw new RejoinError('bad_request', 'a type has at most 64 of A-Z a-z 0-9 _ . : -', { channel });
}
