// Debian's Chromium, with a fresh profile each time.
import { existsSync } from 'node:fs';
import { readFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const CHROMIUM = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path));
/** Why tests are skipped, or false. */
export const skip = CHROMIUM === undefined && 'there is no Chromium on this machine';

const SOURCES = new URL('../../crates/edge/src/', import.meta.url);
const ARGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];
/** Pages that came from no address may not reach this machine otherwise. */
const FROM_NOWHERE = '--disable-features=LocalNetworkAccessChecks';
/** A machine that has never started it, and has two slow cores, takes longer than the default for everything. */
const PATIENCE_MS = 90_000;
const TYPES = { css: 'text/css', js: 'text/javascript', html: 'text/html' };

/** A browser context of its own; `errors` collects what went wrong in its pages. */
export async function openBrowser(options = {}) {
  const profile = await mkdtemp(join(tmpdir(), 'rejoin-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    args: process.env.PAGES_FROM_DISK ? [...ARGS, FROM_NOWHERE] : ARGS,
    viewport: { width: 1440, height: 900 },
    timeout: PATIENCE_MS,
    ...options,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const errors = [];
  context.on('weberror', (error) => errors.push(String(error.error())));
  context.on('console', (message) => {
    // A request that fails because its edge was killed is what this is about, not an error of the page.
    if (message.type() === 'error' && !/Failed to load resource|WebSocket connection/.test(message.text())) errors.push(message.text());
  });
  if (process.env.PAGES_FROM_DISK) await servePagesFromDisk(context);
  const close = async () => {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  };
  return { context, errors, close };
}

/** While working on the pages: without building the edge anew. */
async function servePagesFromDisk(context) {
  await context.route(/^http:\/\/[^/]+\/(\?.*|pane\b.*|dev\/assets\/.*|pages\/.*)?$/, async (route) => {
    const { pathname } = new URL(route.request().url());
    const [name] = pathname.split('/').slice(-1);
    const path = pathname.startsWith('/pages/') ? `pages/${name}` : pathname.startsWith('/dev/') ? `dev/${name}` : `dev/${name || 'clinic'}.html`;
    const body = await readFile(new URL(path, SOURCES));
    await route.fulfill({ body, contentType: TYPES[path.split('.').pop()] });
  });
}
