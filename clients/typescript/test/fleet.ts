// Real edges: `rejoin dev`, which is nats-server, Postgres and two edges behind
// a round-robin proxy without affinity, in processes of their own.

import { execFileSync } from 'node:child_process';
import { createServer, type AddressInfo } from 'node:net';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { end, spawnTied, type Tied } from './tied.js';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

/** The program under test: REJOIN_BIN, or built from this checkout. */
function program(): string {
  const given = process.env['REJOIN_BIN'];
  if (given) return given;
  const cargo = (...args: string[]) => execFileSync('cargo', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  cargo('build', '--quiet', '--locked', '--bin', 'rejoin');
  const metadata = JSON.parse(cargo('metadata', '--format-version', '1', '--no-deps', '--locked')) as { target_directory: string };
  return `${metadata.target_directory}/debug/rejoin`;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export interface Rights {
  subscribe: string;
  publish: string;
}

export class Fleet {
  private known: { url: string; token: string } | undefined;

  private constructor(
    private readonly child: Tied,
    /** The proxy: every connection goes to the next edge. */
    readonly url: string,
    /** Each edge by itself. */
    readonly edges: string[],
    /** May publish and read everything. */
    readonly apiKey: string,
  ) {}

  static async start(): Promise<Fleet> {
    const child = spawnTied(program(), ['dev', '--port', String(await freePort()), '--edges', '2']);
    let said = '';
    await new Promise<void>((resolve, reject) => {
      const hear = (text: Buffer) => {
        said += text.toString();
        if (said.includes('Ctrl-C stops everything')) resolve();
      };
      child.stdout.on('data', hear);
      child.stderr.on('data', hear);
      child.once('exit', (code) => reject(new Error(`rejoin dev ended with ${code}:\n${said}`)));
      child.once('error', reject);
    });
    const [, url] = /Open {2}(\S+?)\/?\n/.exec(said)!;
    const edges = [...said.matchAll(/edge-\d+ +(http\S+)/g)].map((it) => it[1]!);
    const [, apiKey] = /Bearer (rj_\S+?)'/.exec(said)!;
    return new Fleet(child, url!, edges, apiKey!);
  }

  stop(): Promise<void> {
    return end(this.child);
  }

  /** A token of any user; by default for all rooms. */
  async token(user: string, rights: Rights = { subscribe: 'room:*', publish: 'room:*' }): Promise<string> {
    const query = new URLSearchParams({ ...rights });
    const response = await fetch(`${this.url}/dev/token/${user}?${query}`);
    const { token } = (await response.json()) as { token: string };
    return token;
  }

  /** Publishes as a service does, with curl's means. */
  async publish(channel: string, data: unknown): Promise<string> {
    const response = await fetch(`${this.url}/v1/channels/${channel}/messages`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.apiKey}` },
      body: JSON.stringify(data),
    });
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
    return ((await response.json()) as { cursor: string }).cursor;
  }

  /** Makes a user a member of a room. */
  async join(channel: string, name: string): Promise<void> {
    const path = `/v1/rooms/${channel.split(':')[1]}/members/${name}`;
    const done = await fetch(this.url + path, { method: 'PUT', headers: { authorization: `Bearer ${this.apiKey}` } });
    if (!done.ok) throw new Error(`${path}: ${done.status}`);
  }

  /** One of the switches of the demonstration's page, as `edges/edge-1/kill`. */
  async control(path: string): Promise<void> {
    const { url, token } = await this.controls();
    const done = await fetch(`${url}/${path}`, { method: 'POST', headers: { authorization: `Bearer ${token}` } });
    if (!done.ok) throw new Error(`${path}: ${done.status}`);
  }

  /** Asked once: the edges that know may be the ones that are killed. */
  private async controls(): Promise<{ url: string; token: string }> {
    this.known ??= (await (await fetch(`${this.url}/dev/controls`)).json()) as { url: string; token: string };
    return this.known;
  }

  /** How the parts are, as the demonstration's page sees them. */
  async fleet(): Promise<{ rolling: boolean; nats: string; edges: { name: string; state: string }[] }> {
    const { url, token } = await this.controls();
    return (await fetch(`${url}/fleet`, { headers: { authorization: `Bearer ${token}` } })).json() as never;
  }
}

/** A channel that no other test uses. */
export function room(): string {
  return `room:${randomBytes(8).toString('hex')}`;
}

/** A user that no other test uses. */
export function user(): string {
  return `u-${randomBytes(8).toString('hex')}`;
}
