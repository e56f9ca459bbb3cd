import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { Backoff } from '../src/backoff.js';
import { isLater } from '../src/cursor.js';
import { comesBack } from '../src/errors.js';
import { claims } from '../src/token.js';
import { TransportChoice } from '../src/transport/choice.js';
import { newId } from '../src/uuid.js';
import { unsigned } from './helpers.js';

test('a delay lies between 0 and a ceiling that doubles up to its maximum', () => {
  const highest = new Backoff(1_000, 30_000, () => 1);
  const delays = Array.from({ length: 8 }, () => highest.next());
  assert.deepEqual(delays, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  highest.reset();
  assert.equal(highest.next(), 1_000);
  assert.equal(new Backoff(1_000, 30_000, () => 0).next(), 0);
});

test('a delay is never shorter than what the server asks for', () => {
  assert.equal(new Backoff(1_000, 30_000, () => 0).next(5_000), 5_000);
  const backoff = new Backoff(1_000, 30_000, () => 1);
  backoff.limits(10, 20);
  assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [10, 20, 20]);
});

test('close codes: 4500 to 4999 do not come back, all others do', () => {
  for (const code of [1000, 1001, 1006, 1011, 1012, 4000, 4007, 4499]) assert.ok(comesBack(code), String(code));
  for (const code of [4500, 4501, 4506, 4999]) assert.ok(!comesBack(code), String(code));
});

test('cursors compare within an epoch, and a new epoch is later', () => {
  const a = '00000000000000aa';
  const b = '00000000000000bb';
  assert.ok(isLater(`${a}-10`, `${a}-9`));
  assert.ok(!isLater(`${a}-9`, `${a}-9`));
  assert.ok(!isLater(`${a}-9`, `${a}-10`));
  assert.ok(isLater(`${b}-1`, `${a}-10`));
  assert.ok(isLater(`${a}-1`, undefined));
  assert.ok(!isLater('nonsense', undefined));
});

test('ids are UUIDv7 and increase, also when the clock stands or steps back', () => {
  const times = [...Array(5_000).fill(1_000_000), 999_000, 1_000_001, 500];
  const ids = times.map((time) => newId(1_700_000_000_000 + time));
  for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual([...ids].sort(), ids);
  assert.equal(new Set(ids).size, ids.length);
  assert.equal(Number.parseInt(newId(4_000_000_000_000).replace('-', '').slice(0, 12), 16), 4_000_000_000_000);
});

test('the claims of a token are read, and of nonsense there are none', () => {
  assert.deepEqual(claims(unsigned({ sub: 'Zoë', exp: 7 })), { sub: 'Zoë', exp: 7 });
  for (const token of ['', 'a.b.c', 'opaque', `x.${Buffer.from('7').toString('base64')}.y`]) assert.deepEqual(claims(token), {});
});

test('a transport that never worked here is given up soon, a proven one late', () => {
  const choice = new TransportChoice(['websocket', 'sse', 'poll']);
  const failUntilChange = () => {
    const before = choice.current;
    let count = 0;
    while (choice.current === before) {
      choice.failed();
      count++;
    }
    return count;
  };
  assert.equal(failUntilChange(), 2);
  assert.equal(choice.current, 'sse');
  choice.worked('sse');
  assert.equal(failUntilChange(), 6);
  assert.equal(choice.current, 'poll');
  assert.equal(failUntilChange(), 2);
  assert.equal(choice.current, 'websocket', 'it goes around');
  choice.worked('poll');
  choice.startOver();
  assert.equal(choice.current, 'websocket', 'another network is tried from the start');
});

test('src/protocol.ts is what frames.proto says', () => {
  execFileSync(process.execPath, ['scripts/generate-protocol.mjs', '--check'], { stdio: 'pipe' });
});
