// The demonstration as a person starts it: `rejoin dev`, with NATS, Postgres, two edges and the proxy.
import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PROGRAM = process.env.REJOIN_BIN ?? `${ROOT}target/debug/rejoin`;
/** Installing nats-server takes a while the first time. */
const START_MS = 120_000;

/** Starts it on a port of its own; `stop` ends all of it. */
export async function startStack() {
  const child = spawn(PROGRAM, ['dev', '--port', String(await freePort())], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
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

/** The administrative API key of `startProduction`. */
export const ADMIN_KEY = 'rj_browser_tests_admin';
/** One of it that reads and publishes, and is not administrative. */
export const SERVICE_KEY = 'rj_browser_tests_service';

/** An edge as in production, without `dev`, on the NATS of a running demonstration. */
export async function startProduction(stack) {
  const [, nats] = /NATS +(nats:\S+)/.exec(stack.output());
  const folder = await mkdtemp(join(tmpdir(), 'rejoin-production-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const key = (name, text, rights) => `
[[edge.auth.api_keys]]
name = "${name}"
sha256 = "${createHash('sha256').update(text).digest('hex')}"
publish = ["room:*"]
read = ["room:*"]
${rights}`;
  const config = `
[edge]
name = "production"
[edge.listen]
address = "127.0.0.1:${port}"
[edge.origins]
allowed = ["${url}"]
[[edge.auth.keys]]
alg = "HS256"
secret = "${randomBytes(24).toString('hex')}"
${key('operator', ADMIN_KEY, 'admin = true')}
${key('service', SERVICE_KEY, '')}
[backplane]
urls = ["${nats}"]
`;
  const path = join(folder, 'rejoin.toml');
  await writeFile(path, config, { mode: 0o600 });
  const child = spawn(PROGRAM, ['serve', '--config', path], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const ready = async () => (await fetch(`${url}/readyz`).catch(() => undefined))?.ok;
  for (const begun = Date.now(); !(await ready()); await pause(100)) {
    if (child.exitCode !== null || Date.now() - begun > START_MS) throw new Error(`rejoin serve was not ready in time:\n${output}`);
  }
  return {
    url,
    token: (user, ...args) => execFileSync(PROGRAM, ['token', '--config', path, '--user', user, ...args], { encoding: 'utf8' }).trim(),
    stop: async () => {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
