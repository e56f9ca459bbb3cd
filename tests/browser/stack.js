// The demonstration as a person starts it: `rejoin dev`, with NATS, Postgres, two edges and the proxy.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Installing nats-server takes a while the first time. */
const START_MS = 120_000;

/** Starts it on a port of its own; `stop` ends all of it. */
export async function startStack() {
  const program = process.env.REJOIN_BIN ?? `${ROOT}target/debug/rejoin`;
  const child = spawn(program, ['dev', '--port', String(20_000 + (process.pid % 10_000))], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const url = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`rejoin dev was not ready in time:\n${output}`)), START_MS);
    child.stdout.on('data', () => {
      const found = /Open {2}(http:\/\/\S+)\//.exec(output);
      if (!found) return;
      clearTimeout(timer);
      resolve(found[1]);
    });
    child.on('exit', (code) => reject(new Error(`rejoin dev ended with ${code}:\n${output}`)));
  });
  return {
    url,
    /** What it has printed, for a test that failed. */
    output: () => output,
    stop: async () => {
      if (child.exitCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGINT');
      await ended;
    },
  };
}
