// One person: a page of its own with its own client, token and connection. It works alone too, on a phone for example;
// inside the clinic it tells the page around it what it has sent and received.

import { Rejoin, newId } from '/pages/rejoin.js';
import { CAST, MEDICINES, channelsOf, inboxOf, isAtOrAfter, roleOf, roomOf, targetsOf, userOf } from './cast.js';
import { Network } from './network.js';
import { PaneStore } from './pane-store.js';
import { PaneView } from './pane-view.js';

/** Between two reports to the page around: a burst is told in one piece. */
const REPORT_MS = 30;

const query = new URLSearchParams(location.search);
const role = CAST[query.get('role')] ? query.get('role') : 'patient';
const visit = /^[a-z0-9]{1,16}$/.test(query.get('visit') ?? '') ? query.get('visit') : 'lobby';
const user = userOf(role, visit);
const room = roomOf(visit);
const airplaneKey = `rejoin-airplane-${user}`;

const view = new PaneView(CAST, role);
const store = await PaneStore.open(user);
const network = new Network(sessionStorage.getItem(airplaneKey) === 'on');
const trouble = { duplicated: 0, disordered: 0, resets: 0 };
const last = new Map();
const lastNumber = new Map();
const report = { sent: [...store.sent.values()].map(briefly), received: [] };
let retryAt;
let away;
let replayedNow = 0;
let replayNote;

// --- What was there before the reload ---

for (const message of store.received) {
  check(message);
  report.received.push(brief(message));
  show({ ...message, replayed: false });
}
if (store.received.length > 0) away = 'this pane was closed';

// --- The client: this is all there is to it ---

const client = new Rejoin({
  url: location.origin,
  getToken: async () => {
    const grants = new URLSearchParams({ subscribe: channelsOf(role, visit), publish: targetsOf(role, visit) });
    const answer = await network.fetch(`/dev/token/${user}?${grants}`);
    return (await answer.json()).token;
  },
  user,
  // One page is one device here: three panes that start together must not each make up a name.
  device: 'pane',
  webSocket: network.WebSocket,
  fetch: network.fetch,
  retryMinMs: 300,
});
const subscriptions = channelsOf(role, visit).map((channel) =>
  client.subscribe(channel, {
    from: 'earliest',
    autoAck: true,
    onMessage: (message) => receive(message),
    onReset: ({ reason }) => {
      trouble.resets++;
      view.note(`reset: ${reason}; some history is gone`, 'bad');
    },
  }),
);

async function receive(message) {
  const { channel, cursor, id, type, sender, time, data, replayed } = message;
  const entry = { channel, cursor, id, type, sender, time, data };
  const what = await store.receive(entry);
  // Handed over again after a reload, since its effect was kept and the cursor was not: what "once" is made of.
  if (what === 'again') return;
  if (what === 'duplicate') trouble.duplicated++;
  check(entry);
  report.received.push(brief(entry));
  if (replayed && away) {
    replayNote ??= view.note('', 'wait');
    replayedNow++;
  }
  show({ ...entry, replayed: replayed && away !== undefined });
  if (replayNote) replayNote.textContent = `${away}: ${count(replayedNow, 'message')} caught up`;
  if (document.hasFocus()) markRead();
  tell();
}

/** In order within its channel, by position and by its sender's numbers. */
function check({ channel, cursor, sender, data }) {
  const before = last.get(channel);
  if (before && before.split('-')[0] === cursor.split('-')[0] && isAtOrAfter(before, cursor)) trouble.disordered++;
  last.set(channel, cursor);
  if (!Number.isInteger(data?.n)) return;
  const from = `${channel} ${sender}`;
  if (data.n <= (lastNumber.get(from) ?? 0)) trouble.disordered++;
  lastNumber.set(from, data.n);
}

// --- Sending ---

let sentLast = 0;
/** Numbers what is sent, by the clock: a count of what is kept would start lower after a reload that came before the
 * last of it was kept. */
const nextNumber = () => (sentLast = Math.max(Date.now(), sentLast + 1));

function publish(channel, type, data) {
  const id = newId();
  const n = nextNumber();
  const numbered = { ...data, n };
  const entry = { id, channel, type, n, data: numbered, text: view.textOf({ type, data }) };
  report.sent.push(briefly(entry));
  void store.send(entry);
  // It resolves when the message is stored, be that after the airplane has landed. `outbox` tells that as well.
  client.publish(channel, numbered, { id, type }).catch((error) => view.note(`${error.code}: ${error.message}`, 'bad'));
  showOutbox();
  tell();
}

client.on('outbox', ({ id, state, cursor }) => {
  if (state === 'sent') {
    void store.send({ id, cursor }).then((entry) => {
      report.sent.push(briefly(entry));
      tell();
    });
  }
  showOutbox();
});

function showOutbox() {
  view.showOutbox(client.pending.map(({ id, data, type }) => ({ text: store.sent.get(id)?.text ?? view.textOf({ type, data }) })));
  tell();
}

view.form.addEventListener('submit', (event) => {
  event.preventDefault();
  const text = view.text.value.trim();
  if (!text) return;
  view.text.value = '';
  publish(room, 'chat', { text });
});

view.prescribe.addEventListener('click', prescribe);
function prescribe() {
  const number = [...store.sent.values()].filter(({ type, channel }) => type === 'prescription' && channel === room).length;
  const [medicine, dose] = MEDICINES[number % MEDICINES.length];
  const order = { medicine, dose, rx: newId() };
  publish(room, 'prescription', order);
  publish(inboxOf('pharmacist', visit), 'prescription', order);
  publish(inboxOf('patient', visit), 'notice', order);
}

function ready({ id, data: { medicine } }) {
  for (const to of ['patient', 'doctor']) publish(inboxOf(to, visit), 'ready', { medicine, order: id });
}

function burst({ chats = 0, orders = 0 }) {
  for (let i = 1; i <= chats; i++) publish(room, 'chat', { text: `${CAST[role].name}, ${i} of ${chats}` });
  for (let i = 1; i <= orders; i++) publish(inboxOf('pharmacist', visit), 'chat', { text: `Stock question ${i} of ${orders}` });
}

// --- Showing ---

function show(message) {
  const from = roleOf(message.sender, visit);
  const actions = [];
  if (role === 'pharmacist' && message.type === 'prescription') {
    const done = message.id !== undefined && [...store.sent.values()].some(({ data }) => data.order === message.id);
    actions.push({ label: 'Ready', done, act: () => ready(message) });
  }
  view.message(message, from, actions);
}

client.on('state', ({ state, previous, retryInMs, error }) => {
  retryAt = retryInMs === undefined ? undefined : Date.now() + retryInMs;
  const wasOn = ['live', 'catchingUp', 'connected'].includes(previous);
  if (wasOn && (state === 'offline' || state === 'connecting')) {
    away ??= network.down ? 'while in airplane mode' : `after ${left} was lost`;
  }
  if (state === 'closed' && error) view.note(`closed: ${error.message}`, 'bad');
  if (state === 'live' && away !== undefined) {
    if (replayNote) replayNote.dataset.tone = 'good';
    else view.note(`${away}: rejoined on ${client.edge}, nothing was missed`, 'good');
    away = replayNote = undefined;
    replayedNow = 0;
  }
  refresh();
});
let left = 'the server';
client.on('session', ({ edge }) => (left = edge ?? left));

for (const subscription of subscriptions) subscription.on('unread', refresh);

function refresh() {
  const retryInMs = retryAt === undefined ? undefined : Math.max(0, retryAt - Date.now());
  view.showState(client.state, network.down, retryInMs);
  const cursor = subscriptions[0].cursor;
  view.showFacts({ edge: client.edge, transport: client.transport, cursor, unread: unread() });
  tell();
}

const unread = () => subscriptions.reduce((sum, subscription) => sum + subscription.unread, 0);

function markRead() {
  for (const subscription of subscriptions) if (subscription.unread > 0) subscription.ack();
}

addEventListener('focus', markRead);
addEventListener('pointerdown', markRead);
view.unread.addEventListener('click', markRead);
// The countdown, and cursors that advance on a quiet channel.
setInterval(refresh, 1_000);

// --- Switches ---

view.airplane.checked = network.down;
view.airplane.addEventListener('change', () => setAirplane(view.airplane.checked));
view.reload.addEventListener('click', () => location.reload());

function setAirplane(down) {
  view.airplane.checked = down;
  sessionStorage.setItem(airplaneKey, down ? 'on' : 'off');
  network.set(down);
  refresh();
}

// --- The page around ---

let telling;
function tell() {
  if (window.parent === window) return;
  telling ??= setTimeout(() => {
    telling = undefined;
    const positions = Object.fromEntries(subscriptions.map(({ channel, cursor }) => [channel, cursor]));
    const { state, edge } = client;
    const facts = { state, edge, airplane: network.down, unread: unread(), pending: client.pending.length, positions };
    const message = { clinic: role, ...facts, trouble, sent: report.sent.splice(0), received: report.received.splice(0) };
    window.parent.postMessage(message, location.origin);
  }, REPORT_MS);
}

function brief({ channel, cursor, id, sender }) {
  return { channel, cursor, id, sender };
}

function briefly({ id, channel, cursor }) {
  return { id, channel, cursor };
}

function count(n, what) {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

const ORDERS = { airplane: setAirplane, burst, prescribe, say: (text) => publish(room, 'chat', { text }), reload: () => location.reload() };
addEventListener('message', ({ origin, source, data }) => {
  if (origin !== location.origin || source !== window.parent) return;
  if (Object.hasOwn(ORDERS, data.order)) ORDERS[data.order](data.value);
});

// What this page's former self had not even handed to the client's outbox when it was reloaded. Under the same id a
// message is stored once, however often it is published.
const unanswered = [...store.sent.values()].filter(({ id, channel, cursor, data }) => !cursor && data && !store.has(channel, user, id));
for (const { id, channel, type, data } of unanswered.sort((a, b) => a.n - b.n)) {
  client.publish(channel, data, { id, type }).catch((error) => view.note(`${error.code}: ${error.message}`, 'bad'));
}

client.connect();
showOutbox();
refresh();
// Not earlier: what is typed before somebody listens would be gone.
for (const control of document.querySelectorAll(':disabled:not(li button)')) control.disabled = false;
