// Processes that end with their starter, however that ends: they see the end
// of a pipe, which no signal can keep from happening.

import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';

export type Tied = ChildProcessByStdio<Writable, Readable, Readable>;

const SCRIPT = `
exec 3<&0
"$@" 3<&- </dev/null &
child=$!
(read -r _ <&3; kill -TERM $child 2>/dev/null) >/dev/null 2>&1 &
wait $child
`;

export function spawnTied(command: string, args: string[]): Tied {
  return spawn('/bin/sh', ['-c', SCRIPT, 'tied', command, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
}

/** Resolves once it has ended. */
export function end(child: Tied): Promise<void> {
  const ended = new Promise<void>((resolve) => (child.exitCode === null ? child.once('exit', () => resolve()) : resolve()));
  child.stdin.end();
  return ended;
}
