import type { Storage } from './storage.js';

const STORE = 'kv';

interface Operation {
  mode: IDBTransactionMode;
  operation: (store: IDBObjectStore) => IDBRequest;
  resolve: (result: unknown) => void;
  reject: (error: unknown) => void;
}

/** Keeps things in IndexedDB: in pages, workers and service workers. */
export class IndexedDbStorage implements Storage {
  private opened: Promise<IDBDatabase> | undefined;
  private readonly waiting: Operation[] = [];
  private busy = false;

  constructor(private readonly name = 'rejoin') {}

  get(key: string): Promise<string | undefined> {
    return this.run('readonly', (store) => store.get(key));
  }

  async set(key: string, value: string): Promise<void> {
    await this.run('readwrite', (store) => store.put(value, key));
  }

  /** One transaction for all tabs: of several that write, the first one counts. */
  async add(key: string, value: string): Promise<string> {
    const there = await this.run<string | undefined>('readwrite', (store) => {
      const request = store.get(key) as IDBRequest<string | undefined>;
      request.onsuccess = () => request.result === undefined && store.put(value, key);
      return request;
    });
    return there ?? value;
  }

  async delete(key: string): Promise<void> {
    await this.run('readwrite', (store) => store.delete(key));
  }

  async keys(prefix: string): Promise<string[]> {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    return (await this.run('readonly', (store) => store.getAllKeys(range))) as string[];
  }

  /** What comes while a transaction is under way shares the next one, in order: a transaction each would let a burst
   * queue up for seconds on a busy machine, and what is still queued is gone when the page is reloaded. Resolves once it
   * is committed. */
  private run<T>(mode: IDBTransactionMode, operation: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.waiting.push({ mode, operation, resolve: resolve as (result: unknown) => void, reject });
      void this.flush();
    });
  }

  private async flush(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    while (this.waiting.length > 0) {
      const batch = this.waiting.splice(0);
      const failed = await this.commit(batch).catch((error: unknown) => ({ error }));
      if (!failed) continue;
      // Which of them it was is not known: each on its own.
      if (batch.length === 1) batch[0]!.reject(failed.error);
      else for (const one of batch) await this.commit([one]).catch(one.reject);
    }
    this.busy = false;
  }

  private async commit(batch: Operation[]): Promise<void> {
    const db = await this.open();
    const mode = batch.some((one) => one.mode === 'readwrite') ? 'readwrite' : 'readonly';
    return new Promise((resolve, reject) => {
      const transaction = db.transaction(STORE, mode);
      const requests = batch.map(({ operation }) => operation(transaction.objectStore(STORE)));
      transaction.oncomplete = () => {
        batch.forEach((one, i) => one.resolve(requests[i]!.result));
        resolve();
      };
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? requests.find(({ error }) => error)?.error);
    });
  }

  private open(): Promise<IDBDatabase> {
    this.opened ??= new Promise<IDBDatabase>((resolve, reject) => {
      const request = indexedDB.open(this.name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const db = request.result;
        // Browsers may close it (storage pressure, a later version): open anew.
        db.onclose = () => (this.opened = undefined);
        db.onversionchange = () => {
          db.close();
          this.opened = undefined;
        };
        resolve(db);
      };
    }).catch((error: unknown) => {
      this.opened = undefined;
      throw error;
    });
    return this.opened;
  }
}
