import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Storage } from './storage.js';

/** Keeps things in one JSON file that one process uses. A change is on the
 * disk when its promise resolves; changes made together share one write. */
export class FileStorage implements Storage {
  private map: Promise<Map<string, string>> | undefined;
  private writing: Promise<void> | undefined;
  private next: Promise<void> | undefined;

  constructor(private readonly path: string) {}

  async get(key: string): Promise<string | undefined> {
    return (await this.load()).get(key);
  }

  async set(key: string, value: string): Promise<void> {
    (await this.load()).set(key, value);
    await this.save();
  }

  async add(key: string, value: string): Promise<string> {
    const map = await this.load();
    const there = map.get(key) ?? value;
    map.set(key, there);
    await this.save();
    return there;
  }

  async delete(key: string): Promise<void> {
    if ((await this.load()).delete(key)) await this.save();
  }

  async keys(prefix: string): Promise<string[]> {
    return [...(await this.load()).keys()].filter((key) => key.startsWith(prefix));
  }

  private load(): Promise<Map<string, string>> {
    this.map ??= readFile(this.path, 'utf8').then(
      (text) => new Map(Object.entries(JSON.parse(text) as Record<string, string>)),
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return new Map<string, string>();
        this.map = undefined;
        throw error;
      },
    );
    return this.map;
  }

  /** Joins the write that has not begun yet, so that a burst costs two. */
  private save(): Promise<void> {
    this.next ??= (this.writing ?? Promise.resolve())
      .catch(() => {})
      .then(() => {
        this.writing = this.next;
        this.next = undefined;
        return this.write();
      });
    return this.next;
  }

  /** A new file takes the old one's place, so that a crash leaves either. */
  private async write(): Promise<void> {
    const text = JSON.stringify(Object.fromEntries(await this.load()));
    await mkdir(dirname(this.path), { recursive: true });
    const draft = `${this.path}.new`;
    const file = await open(draft, 'w', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, this.path);
  }
}
