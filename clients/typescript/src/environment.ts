// What the place we run in tells: the network and the page come and go.

export interface Wakes {
  /** The network came back, possibly another one. */
  online(): void;
  offline(): void;
  /** The page became visible, or was resumed. */
  visible(): void;
}

type Target = Pick<EventTarget, 'addEventListener' | 'removeEventListener'>;

/** Listens where there is something to listen to; the result ends that. In
 * React Native nothing is: call `rejoin.wake()` from AppState and NetInfo. */
export function watch(wakes: Wakes): () => void {
  const global = globalThis as unknown as Partial<Target>;
  const document = (globalThis as { document?: Target & { visibilityState?: string } }).document;
  const visible = () => {
    if (document?.visibilityState === 'visible') wakes.visible();
  };
  const listeners: [Partial<Target> | undefined, string, () => void][] = [
    [global, 'online', () => wakes.online()],
    [global, 'offline', () => wakes.offline()],
    [global, 'pageshow', () => wakes.visible()],
    [document, 'visibilitychange', visible],
    [document, 'resume', () => wakes.visible()],
  ];
  for (const [target, name, listener] of listeners) target?.addEventListener?.(name, listener);
  return () => {
    for (const [target, name, listener] of listeners) target?.removeEventListener?.(name, listener);
  };
}
