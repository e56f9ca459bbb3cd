// The clinic in a real browser, while everything breaks. Two edges behind a balancer without affinity; the buttons are
// the page's own.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { openBrowser, skip } from './browser.js';
import { Clinic } from './clinic.js';
import { startStack } from './stack.js';

let stack;
let browser;
let clinic;

before(async () => {
  if (!skip) stack = await startStack();
});
after(() => stack?.stop());
beforeEach(async () => {
  if (skip) return;
  browser = await openBrowser();
  clinic = await Clinic.open(browser.context, stack.url);
  await clinic.allUp();
});
afterEach(async (context) => {
  if (!browser) return;
  if (!context.passed) console.log(stack.output().slice(-3_000));
  const { errors } = browser;
  await browser.close();
  assert.deepEqual(errors, []);
});

test('airplane mode, reloads, a killed edge and a rolling restart in the middle of a conversation', { skip }, async () => {
  const faults = {
    4: () => clinic.airplane('patient', true),
    8: () => clinic.reload('doctor'),
    12: async () => clinic.press(await clinic.edgeOf('doctor')),
    14: () => clinic.pane('doctor').locator('#prescribe').click(),
    16: () => clinic.reload('pharmacist'),
    18: () => clinic.reload('patient'),
    22: () => clinic.airplane('patient', false),
    26: () => clinic.page.locator('#burst').click(),
    28: async () => {
      await clinic.allUp();
      await clinic.press('all');
    },
    34: () => clinic.airplane('pharmacist', true),
    38: () => clinic.reload('doctor'),
    44: () => clinic.airplane('pharmacist', false),
  };
  for (let n = 1; n <= 50; n++) {
    await clinic.say('patient', `patient says ${n}`);
    await clinic.say('doctor', `doctor says ${n}`);
    await faults[n]?.();
  }
  await clinic.allUp();
  await clinic.settled();
  await clinic.nothingIsWrong();

  const room = await clinic.conversationIsWhole();
  // 50 each, the burst's 80 each, and the prescription.
  assert.equal(room.length, 2 * 50 + 2 * 80 + 1);
  const orders = await clinic.received('pharmacist');
  assert.deepEqual(
    orders.filter(({ type }) => type === 'chat').map(({ data }) => data.text),
    Array.from({ length: 40 }, (_, i) => `Stock question ${i + 1} of 40`),
  );
  assert.equal(orders.filter(({ type }) => type === 'prescription').length, 1);

  // The pharmacist answers once, and both hear of it.
  await clinic.pane('pharmacist').getByRole('button', { name: 'Ready' }).click();
  for (const role of ['patient', 'doctor']) await clinic.pane(role).getByText('is ready to be picked up').waitFor();
  await clinic.settled();
  await clinic.nothingIsWrong();
});

test('what is written offline survives a reload and is sent once', { skip }, async () => {
  await clinic.airplane('patient', true);
  await clinic.say('patient', 'written in the tunnel');
  await clinic.say('patient', 'and another');
  await clinic.reload('patient');
  await clinic.pane('patient').locator('#state', { hasText: 'airplane mode' }).waitFor();
  await clinic.pane('patient').locator('#outbox', { hasText: 'written in the tunnel' }).waitFor();
  assert.equal((await clinic.received('doctor')).length, 0);
  await clinic.airplane('patient', false);
  await clinic.pane('doctor').getByText('and another').waitFor();
  await clinic.settled();
  await clinic.nothingIsWrong();
  assert.equal((await clinic.conversationIsWhole()).length, 2);
});

test('messages go on while Postgres is away, and survive a killed NATS', { skip }, async () => {
  await clinic.say('patient', 'before');
  await clinic.press('postgres');
  await clinic.partIs('postgres', 'down');
  for (let n = 1; n <= 5; n++) await clinic.say('doctor', `without Postgres ${n}`);
  await clinic.settled();
  await clinic.airplane('patient', true);
  await clinic.say('doctor', 'missed by the patient');
  await clinic.airplane('patient', false);
  await clinic.settled();
  await clinic.press('postgres');
  await clinic.partIs('postgres', 'up');

  await clinic.press('nats');
  for (let n = 1; n <= 5; n++) await clinic.say('patient', `while NATS is away ${n}`);
  await clinic.partIs('nats', 'up');
  await clinic.settled();
  await clinic.nothingIsWrong();
  assert.equal((await clinic.conversationIsWhole()).length, 12);
});

test('the story that the page tells ends well', { skip }, async () => {
  await clinic.page.locator('#story').click();
  await clinic.page.locator('#caption', { hasText: 'That was it' }).waitFor({ timeout: 90_000 });
  await clinic.settled();
  await clinic.nothingIsWrong();
  await clinic.conversationIsWhole();
});
