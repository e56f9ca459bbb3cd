// What the client needs of a place to keep things: text by key.

export interface Storage {
  get(key: string): Promise<string | undefined>;
  set(key: string, value: string): Promise<void>;
  /** Stores it unless there is something, in one step for all who share the
   * storage, and resolves with what is there then. A storage that only one
   * client uses may go without. */
  add?(key: string, value: string): Promise<string>;
  delete(key: string): Promise<void>;
  /** All keys with this prefix, in any order. */
  keys(prefix: string): Promise<string[]>;
}
