// The examples of this README and of the project's, as they stand there, against
// real edges.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Fleet } from './fleet.js';

let fleet: Fleet;
before(async () => {
  fleet = await Fleet.start();
}, { timeout: 600_000 });
after(() => fleet?.stop());

for (const file of ['README.md', '../../README.md']) test(`the ten lines of ${file} work`, { timeout: 60_000 }, async () => {
  const readme = await readFile(file, 'utf8');
  const [, example] = /```js\n(import[\s\S]*?)```/.exec(readme)!;
  assert.ok(example!.trim().split('\n').filter((line) => line !== '').length <= 10);

  const tokens = createServer((_, response) => {
    void fleet.token('alice').then((token) => response.end(token));
  });
  await new Promise<void>((resolve) => tokens.listen(0, '127.0.0.1', resolve));
  const { port } = tokens.address() as AddressInfo;
  const here = example!
    .replace('https://rt.example.com', fleet.url)
    // A page's own `/token`; Node has no page.
    .replace(/(https:\/\/app\.example\.com)?\/token/, `http://127.0.0.1:${port}/token`);
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
  }
});
