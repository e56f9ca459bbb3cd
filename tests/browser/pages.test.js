// What every page of the demonstration keeps to: phone and desktop, light and dark, keyboard, contrast, nothing from
// elsewhere.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, skip } from './browser.js';
import { Clinic } from './clinic.js';
import { weakTexts } from './contrast.js';
import { startStack } from './stack.js';

let stack;
before(async () => {
  if (!skip) stack = await startStack();
});
after(() => stack?.stop());

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

for (const colorScheme of ['light', 'dark']) {
  for (const [name, viewport] of Object.entries({ phone: PHONE, desktop: DESKTOP })) {
    test(`readable and within the screen: ${name}, ${colorScheme}`, { skip }, () =>
      within({ viewport, colorScheme }, async (context) => {
        const clinic = await Clinic.open(context, stack.url);
        await clinic.page.locator('#burst').click();
        await clinic.settled();
        const { page } = clinic;
        if (name === 'phone') await page.locator('#tab-doctor').click();
        for (const frame of [page.mainFrame(), clinic.pane('doctor')]) {
          assert.equal(await frame.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
          assert.deepEqual(await frame.evaluate(weakTexts), []);
        }
        if (name === 'desktop') {
          assert.equal(await page.evaluate(() => document.documentElement.scrollHeight - document.documentElement.clientHeight), 0);
        }
        await page.goto(`${stack.url}/inspector`);
        await page.locator('#state[data-tone="good"]').waitFor();
        await page.getByLabel('A user', { exact: true }).check();
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
        assert.deepEqual(await page.evaluate(weakTexts), []);
      }));
  }
}

test('everything can be done with the keyboard', { skip }, () =>
  within({ viewport: PHONE }, async (context) => {
    const clinic = await Clinic.open(context, stack.url);
    const { page } = clinic;
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.name || document.activeElement.textContent);
    const tabTo = async (wanted) => {
      for (let n = 0; n < 40; n++) {
        if ((await focused()) === wanted) return;
        await page.keyboard.press('Tab');
      }
      assert.fail(`Tab never came to ${wanted}`);
    };
    await tabTo('tab-patient');
    await page.keyboard.press('ArrowRight');
    assert.equal(await focused(), 'tab-doctor');
    await page.locator('#pane-doctor.shown').waitFor();
    // Into the frame: airplane mode by Space, back by Space, write, Enter.
    await page.keyboard.press('Tab');
    await page.keyboard.press('Space');
    await clinic.pane('doctor').locator('#state', { hasText: 'airplane mode' }).waitFor();
    await page.keyboard.press('Space');
    await clinic.allLive();
    for (let n = 0; n < 10 && (await clinic.pane('doctor').evaluate(() => document.activeElement.id)) !== 'text'; n++) await page.keyboard.press('Tab');
    await page.keyboard.type('typed blindly');
    await page.keyboard.press('Enter');
    await clinic.settled();
    assert.equal((await clinic.received('patient'))[0].data.text, 'typed blindly');
  }));

test('pages load nothing from elsewhere', { skip }, () =>
  within({}, async (context) => {
    const strange = [];
    context.on('request', (request) => {
      const { hostname } = new URL(request.url());
      if (hostname !== '127.0.0.1') strange.push(request.url());
    });
    await Clinic.open(context, stack.url);
    assert.deepEqual(strange, []);
  }));
