// The console, on real edges: in development without a question, in production behind an administrative API key.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, skip } from './browser.js';
import { Clinic, SETTLE_MS } from './clinic.js';
import { weakTexts } from './contrast.js';
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

/** Runs with a browser of its own, which must end without an error on its console. */
async function within(options, run) {
  const browser = await openBrowser(options);
  try {
    await run(browser.context);
    assert.deepEqual(browser.errors, []);
  } finally {
    await browser.close();
  }
}

const PHONE = { width: 375, height: 812 };
const DESKTOP = { width: 1280, height: 800 };

/** The console in a second page of a browser in which the clinic is open, so that there are connections. */
async function open(context) {
  const clinic = await Clinic.open(context, stack.url);
  await clinic.allUp();
  const page = await context.newPage();
  await page.goto(`${stack.url}/console`);
  await page.locator('#state', { hasText: 'edges ready' }).waitFor();
  return { clinic, page };
}

const edge = (page, name) => page.locator(`#edges tr[data-edge="${name}"]`);
const value = (page, name) => page.locator(`.tile[data-name="${name}"] .value`);

/** Looks up until the answer says so: it tells who is there at that moment, and whom a drain sent away needs another one to come back. */
async function lookUpUntil(page, wanted, hasText) {
  await page.locator('#wanted').fill(wanted);
  const shown = page.locator('#found', { hasText });
  for (const begun = Date.now(); ; ) {
    await page.getByRole('button', { name: 'Look up' }).click();
    const failure = await shown.waitFor({ timeout: 1_000 }).then(() => undefined, (error) => error);
    if (!failure) return;
    if (Date.now() - begun > SETTLE_MS) throw failure;
  }
}

test('it shows real edges, and drains, undrains and disconnects', { skip }, () =>
  within({ viewport: DESKTOP }, async (context) => {
    const { clinic, page } = await open(context);
    // The clinic's three people are connected, over two edges.
    await value(page, 'Connections').filter({ hasText: /^[3-9]$/ }).waitFor();
    await edge(page, 'edge-1').locator('.pill', { hasText: 'ready' }).waitFor();
    await edge(page, 'production').locator('.pill', { hasText: 'ready' }).waitFor();

    await edge(page, 'edge-1').getByRole('button', { name: 'Drain edge-1' }).click();
    await page.locator('#drain-over').fill('0');
    await page.locator('#drain').getByRole('button', { name: 'Drain', exact: true }).click();
    await edge(page, 'edge-1').locator('.pill', { hasText: 'draining' }).waitFor();
    await edge(page, 'edge-1').locator('td[data-label="Connections"]', { hasText: /^0$/ }).waitFor();
    await page.locator('#ends', { hasText: 'draining' }).waitFor();
    await edge(page, 'edge-1').getByRole('button', { name: 'Undrain edge-1' }).click();
    await edge(page, 'edge-1').locator('.pill', { hasText: 'ready' }).waitFor();

    const visit = await clinic.page.locator('#visit').textContent();
    await lookUpUntil(page, `room:visit-${visit}`, `Users: doctor-${visit}, patient-${visit}`);
    await page.locator('#wanted').fill(`patient-${visit}`);
    await page.keyboard.press('Enter');
    await page.locator('#found .item', { hasText: `room:visit-${visit}` }).waitFor();
    const [session] = /\S+-\d+$/.exec(await page.locator('#found .item .hint').first().textContent());
    await page.locator('#found').getByRole('button', { name: 'Disconnect', exact: true }).first().click();
    await page.locator('#found .item', { hasText: session }).waitFor({ state: 'detached' });
  }));

for (const colorScheme of ['light', 'dark']) {
  for (const [name, viewport] of Object.entries({ phone: PHONE, desktop: DESKTOP })) {
    test(`the console is readable and within the screen: ${name}, ${colorScheme}`, { skip }, () =>
      within({ viewport, colorScheme }, async (context) => {
        const { page } = await open(context);
        await value(page, 'Connections').filter({ hasText: /^[1-9]/ }).waitFor();
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
        assert.deepEqual(await page.evaluate(weakTexts), []);
      }));
  }
}

test('the console works with the keyboard, and what one is about to press stays', { skip }, () =>
  within({ viewport: DESKTOP }, async (context) => {
    const { page } = await open(context);
    const focused = () => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? '');
    for (let n = 0; n < 20 && (await focused()) !== 'Drain edge-2'; n++) await page.keyboard.press('Tab');
    assert.equal(await focused(), 'Drain edge-2');
    // It is drawn anew every two seconds.
    await page.waitForResponse((answer) => answer.url().endsWith('/v1/admin/edges'));
    await page.waitForResponse((answer) => answer.url().endsWith('/v1/admin/edges'));
    assert.equal(await focused(), 'Drain edge-2');
    await page.keyboard.press('Enter');
    await page.locator('#drain[open]').waitFor();
    await page.keyboard.press('Escape');
    await page.locator('#drain[open]').waitFor({ state: 'detached' });
    await edge(page, 'edge-2').locator('.pill', { hasText: 'ready' }).waitFor();
  }));

test('in production it asks for an administrative key', { skip }, () =>
  within({ viewport: DESKTOP }, async (context) => {
    const page = context.pages()[0];
    await page.goto(`${production.url}/console`);
    const enter = async (key) => {
      await page.getByLabel('Administrative API key').fill(key);
      await page.getByRole('button', { name: 'Sign in' }).click();
    };
    await enter(SERVICE_KEY);
    await page.locator('#admin-error', { hasText: 'not administrative' }).waitFor();
    assert.equal(await page.locator('#page').isVisible(), false);
    await enter(ADMIN_KEY);
    await page.locator('#state', { hasText: 'edges ready' }).waitFor();
    await edge(page, 'edge-2').waitFor();
  }));
