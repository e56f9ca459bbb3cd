// One contract for every storage.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import 'fake-indexeddb/auto';
import { AsyncStorage, FileStorage, IndexedDbStorage, MemoryStorage, type Storage } from '../src/node.js';

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rejoin-'));
});
after(() => rm(folder, { recursive: true }));

/** What AsyncStorage looks like, over a map that outlives its adapter. */
function asyncStorageLike(map: Map<string, string>) {
  return {
    getItem: async (key: string) => map.get(key) ?? null,
    setItem: async (key: string, value: string) => void map.set(key, value),
    removeItem: async (key: string) => void map.delete(key),
    getAllKeys: async () => [...map.keys()],
  };
}

let count = 0;
const contract: Record<string, () => { open: () => Storage; survives: boolean }> = {
  memory: () => {
    const storage = new MemoryStorage();
    return { open: () => storage, survives: false };
  },
  file: () => {
    const path = join(folder, 'sub', `${count++}.json`);
    return { open: () => new FileStorage(path), survives: true };
  },
  IndexedDB: () => {
    const name = `contract-${count++}`;
    return { open: () => new IndexedDbStorage(name), survives: true };
  },
  AsyncStorage: () => {
    const map = new Map<string, string>();
    return { open: () => new AsyncStorage(asyncStorageLike(map)), survives: true };
  },
};

for (const [name, make] of Object.entries(contract)) {
  describe(`storage: ${name}`, () => {
    test('of several that add at once, one counts for all', async () => {
      const { open } = make();
      const [one, two] = [open(), name === 'file' ? undefined : open()];
      if (!one.add) return;
      const there = await Promise.all([one.add('key', 'a'), (two ?? one).add!('key', 'b'), one.add('key', 'c')]);
      assert.deepEqual(there, Array.from({ length: 3 }, () => there[0]));
      assert.equal(await one.get('key'), there[0]);
      assert.equal(await one.add('key', 'later'), there[0]);
    });

    test('gets what was set, and nothing after a delete', async () => {
      const storage = make().open();
      assert.equal(await storage.get('a'), undefined);
      await storage.set('a', 'one');
      await storage.set('a', 'two');
      assert.equal(await storage.get('a'), 'two');
      await storage.delete('a');
      await storage.delete('never there');
      assert.equal(await storage.get('a'), undefined);
    });

    test('lists the keys of a prefix, and no others', async () => {
      const storage = make().open();
      for (const key of ['a/1', 'a/2', 'ab', 'b/1', 'a']) await storage.set(key, 'x');
      assert.deepEqual((await storage.keys('a/')).sort(), ['a/1', 'a/2']);
      assert.deepEqual(await storage.keys('c'), []);
    });

    test('keeps many changes made at once, in their order', async () => {
      const { open, survives } = make();
      const storage = open();
      const changes = Array.from({ length: 50 }, (_, i) => storage.set(`k${i % 10}`, String(i)));
      await Promise.all([...changes, storage.delete('k0')]);
      const again = survives ? open() : storage;
      assert.equal(await again.get('k9'), '49');
      assert.equal(await again.get('k0'), undefined);
      assert.equal((await again.keys('k')).length, 9);
    });
  });
}

test('a file that cannot be read is an error, and is not written over', async () => {
  const path = join(folder, 'broken.json');
  await writeFile(path, '{"cut off');
  const storage = new FileStorage(path);
  await assert.rejects(storage.get('a'));
  await assert.rejects(storage.set('a', 'b'));
  assert.deepEqual((await readdir(folder)).filter((name) => name.startsWith('broken')), ['broken.json']);
});
