// Makes the pictures of docs/images: `npm run screenshots`. Everything in them happens as they are taken.
import { fileURLToPath } from 'node:url';
import { openBrowser } from './browser.js';
import { Clinic } from './clinic.js';
import { startStack } from './stack.js';

const folder = fileURLToPath(new URL('../../docs/images/', import.meta.url));

/** A conversation in which Ana has been offline once, and is again, while a server is down. */
async function scene(clinic, show = async () => {}) {
  const say = async (role, text) => {
    await show(role);
    await clinic.say(role, text);
    await clinic.page.waitForTimeout(300);
  };
  await say('patient', 'Good morning, the cough is back.');
  await say('doctor', 'I am looking at your chart. Any fever?');
  await show('patient');
  await clinic.airplane('patient', true);
  await show('doctor');
  await clinic.pane('doctor').locator('#prescribe').click();
  await clinic.page.waitForTimeout(700);
  await show('pharmacist');
  await clinic.pane('pharmacist').getByRole('button', { name: 'Ready' }).click();
  await clinic.page.waitForTimeout(500);
  await show('patient');
  await clinic.airplane('patient', false);
  await clinic.settled();
  await clinic.airplane('patient', true);
  await say('patient', 'On my way, there is a tunnel coming up');
  await clinic.page.waitForTimeout(300);
}

async function take(stack, name, options, picture) {
  if (wanted.length && !wanted.includes(name)) return;
  const browser = await openBrowser(options);
  await picture(browser.context, `${folder}${name}.png`);
  await browser.close();
}

/** Only the pictures whose names are given, if any are. */
const wanted = process.argv.slice(2);
const stack = await startStack();
try {
  for (const [name, colorScheme] of [['clinic-desktop', 'light'], ['clinic-desktop-dark', 'dark']]) {
    await take(stack, name, { viewport: { width: 1280, height: 860 }, colorScheme }, async (context, path) => {
      const clinic = await Clinic.open(context, stack.url);
      await clinic.allUp();
      await scene(clinic);
      await clinic.press(await clinic.edgeOf('doctor'));
      await clinic.page.locator('.part[data-state="down"]').waitFor();
      await clinic.pane('doctor').locator('#state[data-state="live"]').waitFor();
      await clinic.page.waitForTimeout(300);
      await clinic.page.screenshot({ path });
    });
  }
  await take(stack, 'clinic-phone', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5 }, async (context, path) => {
    const clinic = await Clinic.open(context, stack.url);
    await clinic.allUp();
    await scene(clinic, (role) => clinic.page.locator(`#tab-${role}`).click());
    await clinic.page.evaluate(() => scrollTo(0, document.querySelector('.verdict').offsetTop - 8));
    await clinic.page.screenshot({ path });
  });
  await take(stack, 'inspector', { viewport: { width: 1280, height: 800 } }, async (context, path) => {
    const page = context.pages()[0];
    await page.goto(`${stack.url}/inspector`);
    await page.locator('#state[data-tone="good"]').waitFor();
    await page.getByRole('button', { name: 'Subscribe' }).click();
    for (const text of ['hello', 'is anybody there?', 'good night']) {
      await page.locator('#data').fill(JSON.stringify({ text }));
      await page.getByRole('button', { name: 'Publish' }).click();
      await page.locator('#frames summary', { hasText: text }).nth(1).waitFor();
    }
    await page.getByRole('button', { name: 'Replay all: room:lobby' }).click();
    await page.locator('#frames summary', { hasText: '3 ×' }).waitFor();
    await page.locator('.side').evaluate((side) => (side.scrollTop = 0));
    await page.locator('#frames').evaluate((list) => (list.scrollTop = list.scrollHeight));
    await page.screenshot({ path });
  });
  await take(stack, 'console', { viewport: { width: 1280, height: 860 } }, async (context, path) => {
    const clinic = await Clinic.open(context, stack.url);
    await clinic.allUp();
    const page = await context.newPage();
    await page.goto(`${stack.url}/console`);
    const visit = await clinic.page.locator('#visit').textContent();
    for (let n = 0; n < 8; n++) {
      await clinic.say('patient', `Number ${n}`);
      if (n % 3 === 0) await clinic.page.locator('#burst').click();
      await page.waitForTimeout(2_000);
    }
    await page.locator('#wanted').fill(`patient-${visit}`);
    await page.keyboard.press('Enter');
    await page.locator('#found .item').waitFor();
    await page.screenshot({ path, fullPage: true });
  });
} finally {
  await stack.stop();
}
