// Tokens: fetched when needed, kept while they are good, never stored.

import { RejoinError } from './errors.js';

/** Why a token is asked for. */
export type TokenReason = 'connect' | 'expiring' | 'rejected';
export type GetToken = (reason: TokenReason) => Promise<string> | string;

/** A token with less than this left is not worth connecting with. */
const STALE_MS = 10_000;

interface Claims {
  sub?: unknown;
  exp?: unknown;
}

/** The claims of a JWT, unverified: the edge verifies, the client only wants
 * to know whom to file cursors under and when to ask for a new token. */
export function claims(token: string): Claims {
  try {
    const part = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    const bytes = Uint8Array.from(atob(part), (c) => c.charCodeAt(0));
    const parsed: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return parsed !== null && typeof parsed === 'object' ? parsed : {};
  } catch {
    return {};
  }
}

export function subject(token: string | undefined): string | undefined {
  const sub = token === undefined ? undefined : claims(token).sub;
  return typeof sub === 'string' && sub !== '' ? sub : undefined;
}

export class TokenSource {
  private current: string | undefined;
  private asking: Promise<string> | undefined;
  private refused = false;

  constructor(
    token: string | undefined,
    private readonly getToken: GetToken | undefined,
    private readonly now: () => number,
  ) {
    this.current = token;
  }

  get refreshable(): boolean {
    return this.getToken !== undefined;
  }

  /** A token that is good for a while. */
  async get(): Promise<string | undefined> {
    if (!this.getToken) return this.current;
    const exp = this.current === undefined ? 0 : claims(this.current).exp;
    const good = typeof exp !== 'number' || exp * 1000 - this.now() > STALE_MS;
    return this.current !== undefined && good ? this.current : this.renew(this.refused ? 'rejected' : 'connect');
  }

  /** A new token; callers at the same time share one call. */
  renew(reason: TokenReason): Promise<string> {
    const getToken = this.getToken;
    if (!getToken) return Promise.reject(new RejoinError('no_token', 'there is no getToken'));
    this.asking ??= (async () => {
      try {
        this.current = await getToken(reason);
        this.refused = false;
        return this.current;
      } catch (error) {
        if (error instanceof RejoinError) throw error;
        throw new RejoinError('no_token', 'getToken failed', { retryable: true, cause: error });
      } finally {
        this.asking = undefined;
      }
    })();
    return this.asking;
  }

  /** The edge refused the current token. */
  reject(): void {
    if (!this.getToken) return;
    this.current = undefined;
    this.refused = true;
  }
}
