import type { Storage } from './storage.js';

/** What React Native's AsyncStorage (and localStorage, wrapped) look like. */
export interface AsyncStorageLike {
  getItem(key: string): Promise<string | null>;
  setItem(key: string, value: string): Promise<unknown>;
  removeItem(key: string): Promise<unknown>;
  getAllKeys(): Promise<readonly string[]>;
}

/** Keeps things in React Native's AsyncStorage, or anything of its shape. */
export class AsyncStorage implements Storage {
  constructor(private readonly inner: AsyncStorageLike) {}

  async get(key: string): Promise<string | undefined> {
    return (await this.inner.getItem(key)) ?? undefined;
  }

  async set(key: string, value: string): Promise<void> {
    await this.inner.setItem(key, value);
  }

  async delete(key: string): Promise<void> {
    await this.inner.removeItem(key);
  }

  async keys(prefix: string): Promise<string[]> {
    return (await this.inner.getAllKeys()).filter((key) => key.startsWith(prefix));
  }
}
