// The inspector: in development without a question, in production behind an administrative API key.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, skip } from './browser.js';
import { ADMIN_KEY, SERVICE_KEY, startProduction, startStack } from './stack.js';

let stack;
let production;
before(async () => {
  if (skip) return;
  stack = await startStack();
  production = await startProduction(stack);
});
after(async () => {
  await production?.stop();
  await stack?.stop();
});

/** Runs with a page of its own, which must end without an error on its console. */
async function within(run) {
  const browser = await openBrowser();
  try {
    await run(browser.context.pages()[0], browser.context);
    assert.deepEqual(browser.errors, []);
  } finally {
    await browser.close();
  }
}

const connected = (page) => page.locator('#state', { hasText: 'connected' }).waitFor();

let inspections = 0;

/** What a developer does with it, either way, in a channel of its own. */
async function inspect(page) {
  const channel = `room:inspected-${++inspections}`;
  const frames = (text) => page.locator('#frames summary:visible', { hasText: text });
  await page.locator('#channel').fill(channel);
  await page.getByRole('button', { name: 'Subscribe' }).click();
  await page.locator('#subscriptions .pill', { hasText: 'live' }).waitFor();

  await page.locator('#to').fill(channel);
  for (const n of [1, 2, 3]) {
    await page.locator('#data').fill(`{"n":${n}}`);
    await page.getByRole('button', { name: 'Publish' }).click();
    await frames(`{"n":${n}}`).nth(1).waitFor();
  }
  // The same id again is the same message.
  await page.locator('#id').fill('twice');
  for (let i = 0; i < 2; i++) await page.getByRole('button', { name: 'Publish' }).click();
  await frames('a duplicate').waitFor();

  // From the first one on: what follows it comes again.
  await page.getByRole('button', { name: 'Clear' }).click();
  await page.getByRole('button', { name: `Replay all: ${channel}` }).click();
  const all = frames('4 ×');
  await all.click();
  await page.getByRole('button', { name: /Replay after/ }).first().click();
  await frames('3 ×').waitFor();

  await page.locator('#data').fill('{not json');
  await page.getByRole('button', { name: 'Publish' }).click();
  assert.notEqual(await page.locator('#data').evaluate((field) => field.validationMessage), '');

  // A cut connection resumes from its cursors.
  await page.getByRole('button', { name: 'Disconnect' }).click();
  await page.locator('#subscriptions .pill', { hasText: 'waiting' }).waitFor();
  await page.getByRole('button', { name: 'Connect', exact: true }).click();
  await page.locator('#subscriptions .pill', { hasText: 'live' }).waitFor();
  assert.equal(await page.locator('#subscriptions dt', { hasText: 'missing' }).count(), 0);
}

for (const as of ['This API key', 'A user']) {
  test(`in development: subscribes, publishes, shows frames and replays from any point as ${as.toLowerCase()}`, { skip }, () =>
    within(async (page) => {
      await page.goto(`${stack.url}/inspector`);
      await connected(page);
      await page.getByLabel(as, { exact: true }).check();
      await page.getByRole('button', { name: 'Connect', exact: true }).click();
      await connected(page);
      await inspect(page);
    }));
}

test('in production: nothing without an administrative key, and the key is in no URL', { skip }, () =>
  within(async (page, context) => {
    const urls = [];
    context.on('request', (request) => urls.push(request.url()));
    await page.goto(`${production.url}/inspector`);
    const key = page.getByLabel('Administrative API key');
    await key.waitFor();
    assert.equal(await page.locator('#page').isVisible(), false);
    await page.keyboard.press('Escape');
    for (const [wrong, told] of [['rj_nobody', /does not know/], [SERVICE_KEY, /not administrative/]]) {
      await key.fill(wrong);
      await page.keyboard.press('Enter');
      await page.getByRole('alert').filter({ hasText: told }).waitFor();
      assert.equal(await page.locator('#page').isVisible(), false);
    }
    await key.fill(ADMIN_KEY);
    await page.keyboard.press('Enter');
    await connected(page);
    await inspect(page);

    // A reload asks nothing; another tab and one that has signed out are asked again.
    await page.reload();
    await connected(page);
    const other = await context.newPage();
    await other.goto(`${production.url}/inspector`);
    await other.getByLabel('Administrative API key').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await key.waitFor();
    assert.equal(await page.evaluate((text) => JSON.stringify({ ...sessionStorage, ...localStorage }).includes(text), ADMIN_KEY), false);
    assert.deepEqual(urls.filter((url) => url.includes('rj_')), []);
  }));

test('in production: an administrative key reads what its configuration says, and no more', { skip }, () =>
  within(async (page) => {
    await page.goto(`${production.url}/inspector`);
    await page.getByLabel('Administrative API key').fill(ADMIN_KEY);
    await page.keyboard.press('Enter');
    await connected(page);
    await page.locator('#channel').fill('room:open');
    await page.getByRole('button', { name: 'Subscribe' }).click();
    await page.locator('#subscriptions .pill', { hasText: 'live' }).waitFor();
    await page.locator('#channel').fill('user:42');
    await page.getByRole('button', { name: 'Subscribe' }).click();
    await page.locator('#frames', { hasText: 'does not allow' }).waitFor();
    // The others go on.
    await page.locator('#subscriptions .pill', { hasText: 'live' }).waitFor();
    assert.equal(await page.locator('#subscriptions li').count(), 1);

    // As a user: what that user sees, over a WebSocket.
    await page.getByLabel('A user', { exact: true }).check();
    await page.locator('#token').fill(production.token('alice', '--subscribe', 'room:*', '--publish', 'room:*'));
    await page.getByRole('button', { name: 'Connect', exact: true }).click();
    await page.locator('#session', { hasText: 'alice on production' }).waitFor();
    await inspect(page);
  }));
