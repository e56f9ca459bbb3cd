// The README's first example, as it stands there, against real edges.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Fleet } from './fleet.js';

test('the ten lines of the README work', { timeout: 600_000 }, async () => {
  const readme = await readFile('README.md', 'utf8');
  const [, example] = /```js\n([\s\S]*?)```/.exec(readme)!;
  assert.ok(example!.trim().split('\n').filter((line) => line !== '').length <= 10);

  const fleet = await Fleet.start();
  const tokens = createServer((_, response) => {
    void fleet.token('alice').then((token) => response.end(token));
  });
  await new Promise<void>((resolve) => tokens.listen(0, '127.0.0.1', resolve));
  const { port } = tokens.address() as AddressInfo;
  const here = example!
    .replace('https://rt.example.com', fleet.url)
    .replace('https://app.example.com', `http://127.0.0.1:${port}`);
  // Inside the package, so that its own name leads to what is published.
  const path = fileURLToPath(new URL('../readme-example.mjs', import.meta.url));
  await writeFile(path, here);

  const child = spawn(process.execPath, [path], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const said = await new Promise<string>((resolve, reject) => {
      child.stdout.once('data', (text: Buffer) => resolve(text.toString()));
      child.once('exit', (code) => reject(new Error(`ended with ${code} and said nothing`)));
    });
    assert.equal(said, 'alice: hello\n');
  } finally {
    child.kill();
    tokens.closeAllConnections();
    tokens.close();
    await fleet.stop();
  }
});
