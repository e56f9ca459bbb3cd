// The inspector: what a developer wants to see and do with a channel.

import { signIn } from './admin.js';
import { KeyWire } from './key-wire.js';
import { newId } from './rejoin.js';
import { SocketWire } from './socket-wire.js';

/** Older frames leave the page. */
const FRAMES_MAX = 1_000;

const $ = (id) => document.getElementById(id);
const counts = { in: 0, out: 0 };
const waiting = [];
let drawing = false;

const development = document.querySelector('meta[name="rejoin-dev"]') !== null;
const admin = await signIn('Rejoin inspector');
$('nav').append(admin.badge());
$('page').hidden = false;
$('clinic').hidden = $('mint').hidden = !development;
$('token-hint').textContent = development ? 'paste one instead; stays on this page' : 'of the user; stays on this page';
$('reads').textContent = admin.self.read.join(', ') || 'nothing';
$('publishes').textContent = admin.self.publish.join(', ') || 'nothing';

const events = { onFrame: log, onState: showState, onChange: drawSubscriptions };
const wires = { key: new KeyWire(events, admin, local), user: new SocketWire(events) };
let wire = wires.key;

function showState(state, why = '') {
  $('state').textContent = state;
  $('state').dataset.tone = { connected: 'good', connecting: 'wait', closed: /^(1000|$)/.test(why) ? '' : 'bad' }[state] ?? '';
  $('session').textContent = why;
  $('cut').disabled = state === 'closed';
  if (state === 'closed' && why) local(`connection closed: ${why}`);
}

// --- Forms ---

function as() {
  return document.querySelector('input[name="as"]:checked').value;
}

function choose() {
  $('page').dataset.as = as();
  $('as-key').hidden = as() !== 'key';
  $('as-user').hidden = as() !== 'user';
}
for (const choice of document.querySelectorAll('input[name="as"]')) choice.addEventListener('change', choose);
choose();

on('connect', async () => {
  if (wire !== wires[as()]) {
    // The other way has channels of its own: what one may read, the other may not.
    wire.close();
    wire = wires[as()];
    drawSubscriptions();
  }
  if (as() === 'key') return wire.connect();
  const token = $('token').value.trim() || (development ? await minted() : undefined);
  if (token) wire.connect(token);
  else if (!development) local('no token: paste one of the user');
});
$('cut').addEventListener('click', () => wire.close());

async function minted() {
  const grants = $('grants').value.replaceAll(' ', '');
  const query = new URLSearchParams({ subscribe: grants, publish: grants });
  const answer = await fetch(`/dev/token/${encodeURIComponent($('user').value)}?${query}`).catch(() => undefined);
  const body = await answer?.json().catch(() => undefined);
  if (!body?.token) local(`no token: ${body?.error?.message ?? 'this edge gives none; paste one'}`);
  return body?.token;
}

on('subscribe', () => wire.subscribe($('channel').value.trim(), $('from').value.trim() || 'tail', Number($('catchup').value)));

on('publish', () => publication((message) => sent(wire.publish({ id: $('id').value.trim() || newId(), ...message }))));
$('signal').addEventListener('click', () => publication((signal) => sent(wire.signal(signal))));

on('raw', () => {
  const frame = parsed($('frame'));
  if (frame !== undefined) sent(wires.user.send(frame));
});

function publication(use) {
  const data = parsed($('data'));
  if (data !== undefined) use({ channel: $('to').value.trim(), type: $('type').value.trim(), data });
}

function parsed(field) {
  try {
    field.setCustomValidity('');
    return JSON.parse(field.value);
  } catch (error) {
    field.setCustomValidity(error.message);
    field.reportValidity();
    return undefined;
  }
}
for (const field of [$('data'), $('frame')]) field.addEventListener('input', () => field.setCustomValidity(''));

function sent(done) {
  if (!done) local('not sent: there is no connection');
}

function on(form, action) {
  $(form).addEventListener('submit', (event) => {
    event.preventDefault();
    void action();
  });
}

// --- Subscriptions ---

const cards = new Map();
function drawSubscriptions() {
  for (const [channel, card] of cards) {
    if (card.wire === wire && wire.channels.has(channel)) continue;
    card.root.remove();
    cards.delete(channel);
  }
  for (const [channel, state] of wire.channels) {
    const card = cards.get(channel) ?? makeCard(channel);
    card.pill.textContent = state.live ? 'live' : wire.open ? 'catching up' : 'waiting';
    card.pill.dataset.tone = state.live ? 'good' : 'wait';
    const facts = { cursor: state.cursor ?? '–', head: state.head ?? '–', shard: state.shard ?? '–', received: state.received };
    if (state.missing) facts.missing = state.missing;
    if (state.resets) facts.resets = state.resets;
    card.facts.replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make('dt', '', name), make('dd', '', String(value))]));
  }
  $('channels').replaceChildren(...[...wire.channels.keys()].map((channel) => Object.assign(document.createElement('option'), { value: channel })));
}

function makeCard(channel) {
  const root = make('li');
  const header = make('header');
  const pill = make('span', 'pill');
  header.append(make('span', '', channel), pill);
  const facts = make('dl');
  const row = make('div', 'row');
  const button = (label, act) => {
    const made = make('button', '', label);
    made.type = 'button';
    made.setAttribute('aria-label', `${label}: ${channel}`);
    made.addEventListener('click', act);
    row.append(made);
  };
  button('Replay all', () => wire.subscribe(channel, 'earliest'));
  if (wire === wires.user) button('Ack read', () => {
    const { cursor } = wire.channels.get(channel);
    if (cursor) sent(wire.send({ ack: { channel, delivered: cursor, read: cursor } }));
  });
  button('Leave', () => wire.unsubscribe(channel));
  root.append(header, facts, row);
  $('subscriptions').append(root);
  const card = { root, pill, facts, wire };
  cards.set(channel, card);
  return card;
}

// --- Frames ---

function log(way, frame) {
  counts[way]++;
  const kind = Object.keys(frame).find((key) => key !== 'req') ?? '?';
  add({ way, kind, frame, at: new Date() });
}

function local(text) {
  add({ way: 'local', text, at: new Date() });
}

/** Drawn together, once per frame of the screen. */
function add(entry) {
  waiting.push(entry);
  if (waiting.length > FRAMES_MAX) waiting.shift();
  if (drawing || $('pause').checked) return;
  drawing = true;
  setTimeout(draw, 16);
}

function draw() {
  drawing = false;
  const list = $('frames');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 50;
  list.append(...waiting.splice(0).map(line));
  while (list.children.length > FRAMES_MAX) list.firstElementChild.remove();
  $('counts').textContent = `${counts.in} received, ${counts.out} sent; select one to see it whole`;
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function line({ way, kind, frame, text, at }) {
  const item = make('li', `${way} ${kind ?? ''}`);
  if (way === 'local') {
    item.append(make('div', 'local', text));
    item.dataset.text = text.toLowerCase();
    return filtered(item);
  }
  const body = frame[kind];
  const details = make('details');
  const summary = make('summary');
  const time = at.toTimeString().slice(0, 8) + '.' + String(at.getMilliseconds()).padStart(3, '0');
  summary.append(make('span', 'at', time), make('span', 'way', way === 'in' ? '◀' : '▶'), make('span', 'kind', kind), make('span', 'what', what(kind, body)));
  summary.querySelector('.way').setAttribute('aria-label', way === 'in' ? 'received' : 'sent');
  details.append(summary);
  // Made when it is looked at: a burst would make thousands for nothing.
  details.addEventListener('toggle', () => details.children.length === 1 && details.append(make('pre', '', whole(frame)), actions(kind, body)), { once: true });
  item.append(details);
  item.dataset.text = JSON.stringify(frame).toLowerCase();
  item.dataset.kind = kind;
  return filtered(item);
}

function whole(frame) {
  // Tokens end up in screenshots.
  const hidden = (key, value) => (key === 'token' && typeof value === 'string' ? `${value.slice(0, 8)}…` : value);
  return JSON.stringify(frame, hidden, 2);
}

function actions(kind, body) {
  const acts = make('div', 'acts');
  const replay = (label, cursor) => {
    const button = make('button', '', label);
    button.type = 'button';
    button.addEventListener('click', () => wire.subscribe(body.channel, cursor));
    acts.append(button);
  };
  if (kind === 'messages') for (const { seq } of body.messages.slice(0, 8)) replay(`Replay after ${seq}`, `${body.epoch}-${seq}`);
  if (kind === 'live' || kind === 'published' || kind === 'subscribed') replay('Replay from here', body.cursor);
  if (kind === 'reset' && body.earliest) replay('Replay from the earliest', body.earliest);
  return acts;
}

function what(kind, body) {
  const channel = body?.channel ?? '';
  if (kind === 'messages') {
    const { messages } = body;
    const first = messages[0];
    const range = messages.length === 1 ? `#${first.seq}` : `${messages.length} × #${first.seq}…${messages.at(-1).seq}`;
    const content = messages.length === 1 ? `${first.type ?? ''} ${first.sender ?? ''} ${first.data === undefined ? (first.data_base64 ?? '') : JSON.stringify(first.data)}` : '';
    return `${channel} ${range} ${content}`;
  }
  if (kind === 'connect') return `device ${body.device}, ${body.subscriptions.length} subscriptions`;
  if (kind === 'connected') return `${body.user} on ${body.edge}, ping every ${body.ping_ms} ms`;
  if (kind === 'error') return `${body.code}: ${body.message}`;
  if (kind === 'publish') return `${channel} ${body.type} ${JSON.stringify(body.data)}`;
  if (kind === 'published') return `${channel} ${body.cursor}${body.duplicate ? ' (a duplicate: stored before)' : ''}`;
  return channel ? `${channel} ${rest(body)}` : rest(body);
}

function rest({ channel: _, ...other } = {}) {
  const text = JSON.stringify(other);
  return text === '{}' ? '' : text;
}

function filtered(item) {
  const wanted = $('filter').value.trim().toLowerCase();
  const ping = item.dataset.kind === 'ping' || item.dataset.kind === 'pong';
  item.hidden = (ping && !$('pings').checked) || (wanted !== '' && !item.dataset.text.includes(wanted));
  return item;
}

function refilter() {
  for (const item of $('frames').children) filtered(item);
}
$('filter').addEventListener('input', refilter);
$('pings').addEventListener('change', refilter);
$('pause').addEventListener('change', () => !$('pause').checked && draw());
$('clear').addEventListener('click', () => $('frames').replaceChildren());

function make(tag, className = '', text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
showState('closed');
if (as() === 'key') wire.connect();
