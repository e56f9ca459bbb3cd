// Several tabs of one user share one storage. Each takes a numbered place and
// holds it with a Web Lock for as long as it lives, so that its cursors and its
// outbox are its own, and another tab can tell what was left by one that is
// gone. Without Web Locks (Node, React Native, old browsers) there is one
// place, which all share.

const PLACES_MAX = 100;
/** A reloaded tab's own place is free as soon as its former self is gone. */
const HELD_WAIT_MS = 500;

export type LocksLike = Pick<LockManager, 'request'>;

export interface Session {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

export interface Place {
  name: string;
  /** Whether this tab was just opened, rather than reloaded. */
  fresh: boolean;
  release(): void;
}

/** Resolves with what releases the lock, or undefined if it is not to be had
 * within `waitMs` (undefined: wait for as long as it takes). */
export function lock(locks: LocksLike, name: string, waitMs?: number): Promise<(() => void) | undefined> {
  return new Promise((resolve, reject) => {
    const hold = (held: unknown) =>
      held ? new Promise<void>((release) => resolve(release)) : resolve(undefined);
    if (waitMs === 0) {
      locks.request(name, { ifAvailable: true }, hold).catch(reject);
      return;
    }
    const abort = new AbortController();
    const timer = waitMs === undefined ? undefined : setTimeout(() => abort.abort(), waitMs);
    locks
      .request(name, { signal: abort.signal }, (held) => {
        clearTimeout(timer);
        return hold(held);
      })
      .catch((error: unknown) => (abort.signal.aborted ? resolve(undefined) : reject(error)));
  });
}

export function placeLock(scope: string, name: string): string {
  return `${scope}/place/${name}`;
}

/** Takes this tab's former place if it is a reload, else the first free one. */
export async function takePlace(scope: string, locks: LocksLike | undefined, session: Session | undefined): Promise<Place> {
  if (!locks) return { name: '0', fresh: false, release: () => {} };
  const key = `${scope}/place`;
  const held = session?.getItem(key) ?? undefined;
  const take = async (name: string, waitMs: number): Promise<Place | undefined> => {
    const release = await lock(locks, placeLock(scope, name), waitMs);
    if (!release) return undefined;
    session?.setItem(key, name);
    return { name, fresh: name !== held, release };
  };
  let place = held === undefined ? undefined : await take(held, HELD_WAIT_MS);
  for (let i = 0; !place && i < PLACES_MAX; i++) place = await take(String(i), 0);
  if (!place) throw new Error(`more than ${PLACES_MAX} tabs`);
  return place;
}
