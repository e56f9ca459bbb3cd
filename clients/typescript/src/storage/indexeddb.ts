import type { Storage } from './storage.js';

const STORE = 'kv';

/** Keeps things in IndexedDB: in pages, workers and service workers. */
export class IndexedDbStorage implements Storage {
  private opened: Promise<IDBDatabase> | undefined;

  constructor(private readonly name = 'rejoin') {}

  get(key: string): Promise<string | undefined> {
    return this.run('readonly', (store) => store.get(key));
  }

  async set(key: string, value: string): Promise<void> {
    await this.run('readwrite', (store) => store.put(value, key));
  }

  async delete(key: string): Promise<void> {
    await this.run('readwrite', (store) => store.delete(key));
  }

  async keys(prefix: string): Promise<string[]> {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    return (await this.run('readonly', (store) => store.getAllKeys(range))) as string[];
  }

  /** One operation in one transaction; resolves once it is committed. */
  private async run<T>(mode: IDBTransactionMode, operation: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    const db = await this.open();
    return new Promise((resolve, reject) => {
      const transaction = db.transaction(STORE, mode);
      const request = operation(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
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
