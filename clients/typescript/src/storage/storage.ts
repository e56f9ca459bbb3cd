// What the client needs of a place to keep things: text by key.

export interface Storage {
  get(key: string): Promise<string | undefined>;
  set(key: string, value: string): Promise<void>;
  delete(key: string): Promise<void>;
  /** All keys with this prefix, in any order. */
  keys(prefix: string): Promise<string[]>;
}
