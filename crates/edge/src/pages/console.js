// The console: what an operator wants to see and do with the fleet. It asks one edge, which asks the others.

import { signIn } from './admin.js';

/** How often the edges are asked, while the page is seen. */
const EVERY_MS = 2_000;
/** Points of a line in a tile: two minutes. */
const POINTS = 60;

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const history = new Map();
let before = new Map();

const admin = await signIn('Rejoin console');
$('nav').append(admin.badge());
$('page').hidden = false;
run();

async function run() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

async function look() {
  let answer;
  try {
    answer = await admin.json('/v1/admin/edges');
  } catch (error) {
    trouble(error.message);
    state('bad', 'no answer');
    return;
  }
  const edges = answer.edges.map(withRates);
  before = new Map(answer.edges.map((edge) => [edge.edge, edge]));
  trouble(answer.missing.length ? `No answer from ${answer.missing.join(', ')}.` : '');
  const ready = edges.filter((edge) => edge.ready).length;
  const all = edges.length + answer.missing.length;
  state(ready === all ? 'good' : 'wait', `${ready} of ${all} edges ready`);
  $('told').textContent = `as ${admin.self.edge} heard it at ${new Date().toLocaleTimeString()}`;
  drawTiles(edges);
  drawEdges(edges, answer.missing);
  drawEnds(edges);
  await drawSlow(edges);
}

/** What grew since the last look, per second. An edge that was started anew begins anew. */
function withRates(edge) {
  const last = before.get(edge.edge);
  const seconds = (edge.uptime_ms - (last?.uptime_ms ?? 0)) / 1_000;
  const rate = (value) => {
    const grown = last && seconds > 0 ? (value(edge) - value(last)) / seconds : 0;
    return Math.max(0, grown);
  };
  const rates = {
    connects: rate((it) => it.connects),
    refused: rate((it) => it.refused),
    published: rate((it) => it.published),
    deliveries: rate((it) => it.deliveries),
    catchUps: rate((it) => sum(Object.values(it.catch_ups))),
  };
  return { ...edge, rates, open: sum(Object.values(edge.connections)), lag: Math.max(-1, ...edge.archives.map((it) => it.lag_ms)) };
}

function drawTiles(edges) {
  const total = (value) => sum(edges.map(value));
  const by = (name) => merged(edges.map((edge) => edge[name]));
  const lag = Math.max(-1, ...edges.map((edge) => edge.lag));
  const behind = total((edge) => sum(edge.archives.map((it) => it.lag_messages)));
  const transports = Object.entries(by('connections')).filter(([, count]) => count > 0);
  const limits = edges.map((edge) => edge.connect_rate_limit);
  const limit = limits.includes(null) ? 'no limit' : `of ${short.format(sum(limits))} let in`;
  const refused = total((edge) => edge.rates.refused);
  const catchUps = Object.entries(by('catch_ups')).filter(([, count]) => count > 0).map(([source, count]) => `${short.format(count)} ${source}`);
  const resets = sum(Object.values(by('resets')));
  const slow = total((edge) => edge.slow);
  tile('Connections', total((edge) => edge.open), transports.map(([name, count]) => `${short.format(count)} ${name}`).join(' · '));
  tile('Users', total((edge) => edge.users), `${short.format(total((edge) => edge.readers))} subscriptions`);
  tile('Published/s', total((edge) => edge.rates.published), 'stored');
  tile('Deliveries/s', total((edge) => edge.rates.deliveries), 'to connections');
  tile('Connects/s', total((edge) => edge.rates.connects), refused > 0 ? `${perSecond(refused)}/s told to wait` : limit, refused > 0 ? 'wait' : '');
  tile('Catch-ups/s', total((edge) => edge.rates.catchUps), catchUps.join(' · ') || 'none yet');
  tile('Archive lag', Math.max(0, lag), lag < 0 ? 'no archiver' : `${number.format(behind)} messages`, lag > 60_000 ? 'bad' : lag > 5_000 ? 'wait' : '', lag < 0 ? '–' : duration(lag));
  tile('Slow clients', slow, 'for over a second', slow > 0 ? 'wait' : '');
  tile('Resets', resets, 'since the start', resets > 0 ? 'wait' : '');
}

function tile(name, value, note, tone = '', text = value % 1 ? perSecond(value) : number.format(value)) {
  const points = history.get(name) ?? [];
  history.set(name, points);
  points.push(value);
  if (points.length > POINTS) points.shift();
  let box = document.querySelector(`.tile[data-name="${name}"]`);
  if (!box) {
    box = make('div', 'tile');
    box.dataset.name = name;
    box.append(make('dt', '', name), make('dd', 'value'), make('dd', 'note'), make('dd', 'line-of'));
    box.lastChild.append(spark());
    $('tiles').append(box);
  }
  box.dataset.tone = tone;
  box.querySelector('.value').textContent = text;
  box.querySelector('.note').textContent = note;
  const top = Math.max(1, ...points);
  const places = points.map((point, index) => `${((index / (POINTS - 1)) * 100).toFixed(1)},${(28 - (point / top) * 26).toFixed(1)}`);
  const end = (((points.length - 1) / (POINTS - 1)) * 100).toFixed(1);
  box.querySelector('polyline').setAttribute('points', places.join(' '));
  box.querySelector('polygon').setAttribute('points', `0,29 ${places.join(' ')} ${end},29`);
}

function spark() {
  const svg = (name) => document.createElementNS('http://www.w3.org/2000/svg', name);
  const drawing = svg('svg');
  drawing.classList.add('spark');
  drawing.setAttribute('viewBox', '0 0 100 30');
  drawing.setAttribute('preserveAspectRatio', 'none');
  drawing.setAttribute('aria-hidden', 'true');
  drawing.append(svg('polygon'), svg('polyline'));
  return drawing;
}

function drawEdges(edges, missing) {
  const most = Math.max(1, ...edges.map((edge) => edge.open));
  const rows = edges.map((edge) => row(edge.edge, () => cells(edge, most)));
  rows.push(...missing.map((name) => row(name, () => [cell('Edge', named(name, 'known by its heartbeats')), cell('State', pill('bad', 'no answer'))])));
  // Kept where they are, so that nobody loses the button under a finger.
  const body = $('edges').tBodies[0];
  for (const gone of [...body.rows].filter((it) => !rows.includes(it))) gone.remove();
  rows.forEach((it, index) => body.rows[index] !== it && body.insertBefore(it, body.rows[index] ?? null));
}

/** A row, drawn anew unless somebody is about to press its button. */
function row(name, draw) {
  const known = [...$('edges').tBodies[0].rows].find((it) => it.dataset.edge === name);
  const made = known ?? make('tr');
  made.dataset.edge = name;
  const drawn = draw();
  const button = known?.querySelector('button');
  const drawnButton = drawn.at(-1)?.querySelector('button');
  if (button && drawnButton && button.textContent === drawnButton.textContent) drawn[drawn.length - 1] = button.parentElement;
  if (known && drawn.at(-1) === known.lastElementChild) {
    while (known.children.length > 1) known.firstElementChild.remove();
    known.prepend(...drawn.slice(0, -1));
  } else {
    made.replaceChildren(...drawn);
  }
  return made;
}

function cells(edge, most) {
  const reasons = Object.values(edge.reasons).join(', ');
  const shown = edge.draining ? pill('wait', 'draining') : edge.ready ? pill('good', 'ready') : pill('bad', 'not ready');
  shown.title = reasons;
  const open = make('span', '', number.format(edge.open));
  const share = Object.assign(make('meter'), { min: 0, max: most, value: edge.open });
  share.setAttribute('aria-label', 'compared with the others');
  const held = sum(edge.windows.map((it) => it.messages));
  const oldest = Math.min(...edge.windows.map((it) => it.oldest_ms ?? Infinity));
  const reach = held ? `reaches back ${duration(edge.time_ms - oldest)}` : 'nothing stored yet';
  const bytes = short.format(sum(edge.windows.map((it) => it.bytes)));
  const act = make('button', edge.draining ? '' : 'danger', edge.draining ? 'Undrain' : 'Drain');
  act.type = 'button';
  act.setAttribute('aria-label', `${act.textContent} ${edge.edge}`);
  act.addEventListener('click', () => (act.textContent === 'Drain' ? askToDrain(edge.edge) : undrain(edge.edge)));
  const last = make('td');
  last.append(act);
  return [
    cell('Edge', named(edge.edge, `${edge.version}, up ${duration(edge.uptime_ms)}`)),
    cell('State', shown),
    cell('Connections', [open, share], 'n'),
    cell('Readers', number.format(edge.readers), 'n'),
    cell('Connects/s', perSecond(edge.rates.connects), 'n'),
    cell('Deliveries/s', perSecond(edge.rates.deliveries), 'n'),
    cell('Slow', number.format(edge.slow), 'n'),
    cell('Window', [`${number.format(held)} messages, ${bytes}B`, make('span', 'hint', reach)]),
    cell('Archive lag', edge.lag < 0 ? 'stands by' : duration(edge.lag), 'n'),
    last,
  ];
}

function askToDrain(edge) {
  const open = before.get(edge)?.connections ?? {};
  $('drain-title').textContent = `Drain ${edge}`;
  $('drain-about').textContent = `It takes no new connections, and its ${number.format(sum(Object.values(open)))} are sent to the other edges. It goes on running; Undrain takes it back.`;
  $('drain').returnValue = '';
  $('drain').showModal();
  $('drain').onclose = () => {
    if ($('drain').returnValue === 'drain') act('drain', { edge, spread_ms: Number($('drain-over').value) * 1_000 });
  };
}

function undrain(edge) {
  return act('undrain', { edge });
}

/** Does something, says so if it failed, and shows what came of it. */
async function act(operation, body) {
  try {
    await admin.json(`/v1/admin/${operation}`, { body });
  } catch (error) {
    trouble(error.message);
    return;
  }
  await look();
}

function drawEnds(edges) {
  const normal = ['peer', 'draining', 'lifetime', 'token_expired', 'disconnected'];
  const ends = Object.entries(merged(edges.map((edge) => edge.closes))).map(([reason, count]) => [normal.includes(reason) ? 'good' : 'wait', reason, count]);
  const resets = Object.entries(merged(edges.map((edge) => edge.resets))).map(([reason, count]) => ['bad', `reset: ${reason}`, count]);
  const items = [...ends, ...resets].filter(([, , count]) => count > 0).sort((one, other) => other[2] - one[2]);
  const shown = items.map(([tone, reason, count]) => {
    const item = make('li');
    item.append(pill(tone, `${reason.replaceAll('_', ' ')} ${number.format(count)}`));
    return item;
  });
  $('ends').replaceChildren(...(shown.length ? shown : [make('li', 'hint', 'None yet.')]));
}

async function drawSlow(edges) {
  if (!edges.some((edge) => edge.slow > 0)) return $('slow').replaceChildren(make('p', 'hint', 'None: every client takes what it is sent.'));
  const { connections } = await admin.json('/v1/admin/slow').catch(() => ({ connections: [] }));
  $('slow').replaceChildren(list(connections));
}

$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  find();
});

async function find() {
  const wanted = $('wanted').value.trim();
  const channel = wanted.includes(':');
  const query = new URLSearchParams(channel ? { channel: wanted } : { user: wanted });
  try {
    const answer = await admin.json(`/v1/admin/${channel ? 'channel' : 'connections'}?${query}`);
    $('found').replaceChildren(...(channel ? ofChannel(answer) : ofUser(answer)), ...silent(answer.missing));
  } catch (error) {
    $('found').replaceChildren(make('p', 'trouble', error.message));
  }
}

function ofUser({ user, connections }) {
  const line = make('div', 'line');
  const count = connections.length;
  line.append(make('span', '', count ? `${user} has ${count} ${count === 1 ? 'connection' : 'connections'}` : `${user} is not connected`));
  if (count > 1) line.append(disconnectButton('Disconnect all', { user }));
  return [line, list(connections)];
}

function list(connections) {
  const all = make('ul', 'list');
  for (const connection of connections) {
    const item = make('li', 'item');
    const { device, transport, edge, session, user, since_ms, slow_since_ms } = connection;
    const about = make('div');
    const since = slow_since_ms ? `takes nothing for ${duration(Date.now() - slow_since_ms)}` : `for ${duration(Date.now() - since_ms)}`;
    about.append(make('div', 'about', `${user}${device ? `, ${device}` : ''}`), make('div', 'hint', `${transport} on ${edge}, ${since}, ${session}`));
    item.append(about, disconnectButton('Disconnect', { session }), places(connection.channels));
    all.append(item);
  }
  return all;
}

function places(channels) {
  const all = make('ul', 'places');
  for (const { channel, lag, live, position } of channels ?? []) {
    const item = make('li');
    const where = lag === null ? 'further back than the window' : lag ? `${number.format(lag)} messages behind` : live ? 'live' : 'catching up';
    item.append(make('code', '', channel), make('span', 'hint', `${where}, at ${position}`));
    all.append(item);
  }
  if (!channels) all.append(make('li', 'hint', 'it did not get to say where its channels stand'));
  return all;
}

function disconnectButton(text, body) {
  const button = make('button', 'danger', text);
  button.type = 'button';
  button.addEventListener('click', async () => {
    button.disabled = true;
    await act('disconnect', body);
    await find();
  });
  return button;
}

function ofChannel({ channel, head, readers, users, more, edges }) {
  const line = make('div', 'line');
  line.append(make('span', '', `${channel} has ${number.format(readers)} ${readers === 1 ? 'reader' : 'readers'}`), make('code', '', `head ${head}`));
  const all = make('ul', 'places');
  for (const edge of edges) {
    const item = make('li');
    item.append(make('span', '', edge.edge), make('span', 'hint', `${number.format(edge.readers)} readers, at ${edge.head}`));
    all.append(item);
  }
  const who = make('p', 'users', users.length ? `Users: ${users.join(', ')}${more ? ' and more' : ''}` : 'No user listens.');
  return [line, all, who];
}

function silent(missing) {
  return missing.length ? [make('p', 'trouble', `No answer from ${missing.join(', ')}.`)] : [];
}

function state(tone, text) {
  $('state').dataset.tone = tone;
  $('state').textContent = text;
}

function trouble(text) {
  $('trouble').textContent = text;
  $('trouble').hidden = !text;
}

function cell(label, content, kind = '') {
  const made = make('td', kind);
  made.dataset.label = label;
  made.append(...[content].flat());
  return made;
}

function named(name, about) {
  return [make('span', 'name', name), make('span', 'hint', about)];
}

function pill(tone, text) {
  const made = make('span', 'pill', text);
  made.dataset.tone = tone;
  return made;
}

function perSecond(value) {
  return value >= 100 ? short.format(value) : value.toFixed(value > 0 && value < 10 ? 1 : 0);
}

function duration(ms) {
  const seconds = Math.max(0, ms) / 1_000;
  if (seconds < 1) return `${Math.round(seconds * 1_000)} ms`;
  const units = [['d', 86_400], ['h', 3_600], ['min', 60], ['s', 1]];
  const [unit, size] = units.find(([, size]) => seconds >= size);
  return `${Math.floor(seconds / size)} ${unit}`;
}

function merged(counts) {
  const all = {};
  for (const of of counts) for (const [name, count] of Object.entries(of)) all[name] = (all[name] ?? 0) + count;
  return all;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function make(tag, className = '', text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
