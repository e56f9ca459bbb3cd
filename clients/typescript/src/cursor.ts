// Cursors are opaque to applications. The client looks inside only to drop
// what it has seen and to notice what it has not.

export interface Position {
  epoch: string;
  seq: number;
}

export function parseCursor(cursor: string | undefined): Position | undefined {
  const match = /^([0-9a-f]{16})-(\d+)$/.exec(cursor ?? '');
  return match ? { epoch: match[1]!, seq: Number(match[2]) } : undefined;
}

/** Whether `cursor` is later than `than`. Another epoch is later: epochs
 * arrive in order, and a stream never returns to one. */
export function isLater(cursor: string, than: string | undefined): boolean {
  const a = parseCursor(cursor);
  const b = parseCursor(than);
  if (!a) return false;
  return !b || a.epoch !== b.epoch || a.seq > b.seq;
}
