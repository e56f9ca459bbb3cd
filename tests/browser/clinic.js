// The clinic as a person uses it, and what its panes have kept.
import assert from 'node:assert/strict';

export const ROLES = ['patient', 'doctor', 'pharmacist'];
/** An edge takes 2 s to come back, NATS and catch-up some more; the machine may be busy. */
export const SETTLE_MS = 90_000;

export class Clinic {
  static async open(context, url) {
    const page = context.pages()[0] ?? (await context.newPage());
    await page.goto(url);
    const clinic = new Clinic(page, url);
    await clinic.allLive();
    return clinic;
  }

  constructor(page, url) {
    this.page = page;
    this.url = url;
    /** What was written, by role. */
    this.written = { patient: [], doctor: [] };
  }

  pane(role) {
    return this.page.frame({ name: role });
  }

  /** Writes and presses Enter. */
  async say(role, text) {
    const field = this.pane(role).locator('#text');
    await field.fill(text);
    await field.press('Enter');
    this.written[role].push(text);
  }

  async airplane(role, on) {
    await this.pane(role).locator('#airplane').setChecked(on);
  }

  async reload(role) {
    const loaded = this.page.waitForEvent('framenavigated', (frame) => frame.name() === role);
    await this.pane(role).locator('#reload').click();
    await loaded;
  }

  async edgeOf(role) {
    await this.pane(role).waitForFunction(() => /^edge-/.test(document.getElementById('edge').textContent));
    return this.pane(role).locator('#edge').textContent();
  }

  /** Presses the button of a part: `edge-1`, `all`, `nats`, `postgres`. */
  async press(part) {
    await this.page.locator(`[data-part="${part}"] button`).click();
  }

  async partIs(part, state) {
    await this.page.locator(`[data-part="${part}"][data-state="${state}"]`).waitFor({ timeout: SETTLE_MS });
  }

  async allLive() {
    for (const role of ROLES) await this.pane(role).locator('#state[data-state="live"]').waitFor({ state: 'attached', timeout: SETTLE_MS });
  }

  async allUp(edges = ['edge-1', 'edge-2']) {
    for (const edge of edges) await this.partIs(edge, 'up');
    await this.page.locator('[data-part="all"] button:enabled').waitFor({ timeout: SETTLE_MS });
  }

  /** Waits until the page says that everybody has everything. */
  async settled() {
    await this.allLive();
    await this.page.locator('#verdict[data-tone="good"]').waitFor({ timeout: SETTLE_MS }).catch(async (error) => {
      const shown = [await this.page.locator('#verdict').textContent(), await this.page.locator('.ledger').innerText()];
      for (const role of ROLES) shown.push(JSON.stringify(await this.pane(role).evaluate(dump)));
      throw new Error(`${error.message}\n${shown.map((text) => text.slice(0, 4000)).join('\n--\n')}`);
    });
  }

  count(role, name) {
    return this.page.locator(`[data-count="${role} ${name}"]`).textContent().then(Number);
  }

  async nothingIsWrong() {
    for (const role of ROLES) {
      for (const name of ['waiting', 'missing', 'duplicated', 'disordered']) assert.equal(await this.count(role, name), 0, `${role}: ${name}`);
    }
  }

  /** What a pane's own database holds, in the order of arrival. Not the page's counters: they are under test too. */
  async received(role) {
    return this.pane(role).evaluate(async () => {
      const query = new URLSearchParams(location.search);
      const open = indexedDB.open(`rejoin-clinic-${query.get('role')}-${query.get('visit')}`);
      const db = await new Promise((resolve) => (open.onsuccess = () => resolve(open.result)));
      const all = db.transaction('received').objectStore('received').getAll();
      await new Promise((resolve) => (all.onsuccess = resolve));
      db.close();
      return all.result.sort((a, b) => a.order - b.order).map(({ channel, cursor, sender, type, data }) => ({ channel, cursor, sender: sender.split('-')[0], type, data }));
    });
  }

  /** Everything that was written is in both panes of the room: once, in the same order, each sender's in theirs. */
  async conversationIsWhole() {
    const inRoom = async (role) => (await this.received(role)).filter(({ channel }) => channel.startsWith('room:'));
    const [patient, doctor] = [await inRoom('patient'), await inRoom('doctor')];
    assert.deepEqual(patient, doctor);
    for (const role of ['patient', 'doctor']) {
      const texts = patient.filter(({ sender, type }) => sender === role && type === 'chat').map(({ data }) => data.text);
      const mine = new Set(this.written[role]);
      assert.deepEqual(texts.filter((text) => mine.has(text)), this.written[role]);
    }
    // What is shown is what was received, as far as it is shown.
    for (const [role, all] of [['patient', patient], ['doctor', doctor]]) {
      const shown = await this.pane(role).locator('#list li[data-channel^="room:"]').evaluateAll((lines) => lines.map(({ dataset }) => `${dataset.epoch}-${dataset.seq}`));
      assert.deepEqual(shown, all.map(({ cursor }) => cursor).slice(-shown.length));
    }
    return patient;
  }
}

/** Runs in a pane: what it has sent and not got back, and what its client keeps. */
async function dump() {
  const read = async (name, store, keys) => {
    const open = indexedDB.open(name);
    const db = await new Promise((resolve) => (open.onsuccess = () => resolve(open.result)));
    const get = (what) => new Promise((resolve) => {
      const request = db.transaction(store).objectStore(store)[what]();
      request.onsuccess = () => resolve(request.result);
    });
    const result = keys ? [await get('getAllKeys'), await get('getAll')] : await get('getAll');
    db.close();
    return result;
  };
  const query = new URLSearchParams(location.search);
  const name = `rejoin-clinic-${query.get('role')}-${query.get('visit')}`;
  const received = await read(name, 'received');
  const got = new Set(received.map(({ id }) => id));
  // Each sender numbers what it sends.
  const numbers = {};
  for (const { channel, sender, data } of received.sort((a, b) => a.order - b.order)) (numbers[`${channel} ${sender}`] ??= []).push(data.n);
  const disordered = Object.entries(numbers).flatMap(([from, all]) =>
    all.flatMap((n, i) => (i > 0 && n <= all[i - 1] ? [`${from}: ${all.slice(Math.max(0, i - 3), i + 3)}`] : [])));
  const lost = (await read(name, 'sent')).filter(({ id, channel }) => channel.startsWith('room:') && !got.has(id));
  const kept = {};
  for (const { name: other } of await indexedDB.databases()) {
    if (other.startsWith('rejoin-clinic')) continue;
    const open = indexedDB.open(other);
    const db = await new Promise((resolve) => (open.onsuccess = () => resolve(open.result)));
    const stores = [...db.objectStoreNames];
    db.close();
    for (const store of stores) {
      const [keys, values] = await read(other, store, true);
      keys.forEach((key, i) => (String(key).includes(query.get('role')) ? (kept[key] = String(values[i]).slice(0, 120)) : 0));
    }
  }
  return { state: document.getElementById('state').textContent, outbox: document.getElementById('outbox').innerText, disordered, lost, kept };
}
