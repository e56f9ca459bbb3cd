// Message ids: UUIDv7 (RFC 9562), increasing within a page even when several
// are made in one millisecond or the clock steps back.

let lastMs = 0;
let counter = 0;

/** A new message id. Make it when the user presses send, not when the network
 * is there: retries under the same id never make a second message. */
export function newId(nowMs = Date.now()): string {
  const bytes = new Uint8Array(16);
  // React Native has no crypto without a polyfill. An id need not be secret,
  // only unique among those of one user, so that Math.random is enough.
  if (globalThis.crypto?.getRandomValues) globalThis.crypto.getRandomValues(bytes);
  else for (let i = 0; i < 16; i++) bytes[i] = Math.random() * 256;

  if (nowMs > lastMs) {
    lastMs = nowMs;
    counter = bytes[6]! & 0x07;
  } else if (++counter > 0xfff) {
    lastMs++;
    counter = 0;
  }
  for (let i = 0, rest = lastMs; i < 6; i++, rest = Math.floor(rest / 256)) bytes[5 - i] = rest % 256;
  bytes[6] = 0x70 | (counter >> 8);
  bytes[7] = counter & 0xff;
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
