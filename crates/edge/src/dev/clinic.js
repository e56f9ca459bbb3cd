// The clinic's page: three panes, each a page of its own in a frame, the switches, and the counters.

import { CAST, ROLES } from './cast.js';
import { Fleet } from './fleet.js';
import { Ledger } from './ledger.js';
import { tellStory } from './story.js';

/** A pane that has not reported within this time was loaded from an edge that died under it: load it again. */
const PANE_SILENT_MS = 6_000;
const VISIT_KEY = 'rejoin-visit';

const find = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search).get('visit');
const visit = /^[a-z0-9]{1,16}$/.test(asked ?? '') ? asked : (localStorage.getItem(VISIT_KEY) ?? newVisit());
localStorage.setItem(VISIT_KEY, visit);
find('visit').textContent = visit;
find('alone').href = `/pane?role=patient&visit=${visit}`;
find('new').addEventListener('click', () => {
  localStorage.setItem(VISIT_KEY, newVisit());
  location.assign('/');
});

function newVisit() {
  return Array.from(crypto.getRandomValues(new Uint8Array(5)), (byte) => (byte % 36).toString(36)).join('');
}

const ledger = new Ledger(visit);
const panes = new Map();
let drawing;

// --- Panes ---

for (const role of ROLES) {
  const { name, title } = CAST[role];
  const tab = document.createElement('button');
  Object.assign(tab, { type: 'button', id: `tab-${role}` });
  tab.dataset.role = role;
  tab.setAttribute('role', 'tab');
  tab.setAttribute('aria-controls', `pane-${role}`);
  tab.append(name, Object.assign(document.createElement('small'), { textContent: 'starting' }));
  tab.addEventListener('click', () => choose(role));
  document.querySelector('.tabs').append(tab);

  const root = document.createElement('article');
  Object.assign(root, { className: 'pane', id: `pane-${role}` });
  root.dataset.role = role;
  root.setAttribute('aria-labelledby', tab.id);
  const frame = document.createElement('iframe');
  frame.title = `${name}, ${title}`;
  frame.name = role;
  frame.src = `/pane?role=${role}&visit=${visit}`;
  root.append(frame);
  document.querySelector('.panes').append(root);
  const pane = { root, tab, frame, facts: {}, heardAt: Date.now() };
  frame.addEventListener('load', () => (pane.heardAt = Date.now()));
  panes.set(role, pane);
}
choose('patient');

document.querySelector('.tabs').addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const at = ROLES.indexOf(document.activeElement.dataset.role);
  const next = ROLES[(at + step + ROLES.length) % ROLES.length];
  choose(next);
  panes.get(next).tab.focus();
});

function choose(role) {
  for (const [other, { root, tab }] of panes) {
    root.classList.toggle('shown', other === role);
    tab.setAttribute('aria-selected', String(other === role));
    tab.tabIndex = other === role ? 0 : -1;
  }
}

/** Tells a pane to do something, as its own buttons would. */
function order(role, what, value) {
  panes.get(role).frame.contentWindow.postMessage({ order: what, value }, location.origin);
}

addEventListener('message', ({ origin, source, data }) => {
  const pane = panes.get(data?.clinic);
  if (origin !== location.origin || !pane || source !== pane.frame.contentWindow) return;
  ledger.hear(data);
  pane.facts = data;
  pane.heardAt = Date.now();
  draw();
});

setInterval(() => {
  for (const pane of panes.values()) {
    if (document.visibilityState !== 'visible' || Date.now() - pane.heardAt < PANE_SILENT_MS) continue;
    pane.heardAt = Date.now();
    pane.frame.contentWindow.location.replace(pane.frame.src);
  }
}, 1_000);

// --- Counters ---

const COUNTS = { sent: 'sent', received: 'received', waiting: 'on the way', missing: 'missing', duplicated: 'duplicated', disordered: 'out of order' };
const WRONG = new Set(['missing', 'duplicated', 'disordered']);
const cells = new Map();
for (const role of ROLES) {
  const head = Object.assign(document.createElement('th'), { scope: 'col', textContent: CAST[role].name });
  head.dataset.role = role;
  document.querySelector('.ledger thead tr').append(head);
}
for (const [name, label] of Object.entries(COUNTS)) {
  const row = document.createElement('tr');
  row.append(Object.assign(document.createElement('th'), { scope: 'row', textContent: label }));
  for (const role of ROLES) {
    const cell = document.createElement('td');
    cell.dataset.count = `${role} ${name}`;
    cells.set(cell.dataset.count, cell);
    row.append(cell);
  }
  document.querySelector('.ledger tbody').append(row);
}

function draw() {
  drawing ??= setTimeout(() => {
    drawing = undefined;
    const sum = ledger.sum();
    for (const role of ROLES) {
      for (const name of Object.keys(COUNTS)) {
        const value = sum.rows[role][name];
        const cell = cells.get(`${role} ${name}`);
        cell.textContent = value;
        cell.classList.toggle('zero', value === 0);
        cell.dataset.tone = value === 0 ? '' : WRONG.has(name) ? 'bad' : name === 'waiting' ? 'wait' : '';
      }
      const { tab, facts } = panes.get(role);
      const state = facts.airplane ? 'airplane' : facts.state === 'catchingUp' ? 'catching up' : facts.state ?? 'starting';
      tab.lastElementChild.textContent = facts.unread > 0 ? `${state} · ${facts.unread} new` : state;
    }
    judge(sum);
    fleet.place(new Map(ROLES.map((role) => [role, { edge: panes.get(role).facts.edge, name: CAST[role].name }])));
  }, 60);
}

function judge({ sent, received, waiting, missing, duplicated, disordered }) {
  const verdict = find('verdict');
  const say = (tone, text) => {
    verdict.dataset.tone = tone;
    if (verdict.textContent !== text) verdict.textContent = text;
  };
  const resets = ROLES.reduce((total, role) => total + (panes.get(role).facts.trouble?.resets ?? 0), 0);
  if (missing + duplicated + disordered + resets > 0) {
    say('bad', `${missing} missing, ${duplicated} duplicated, ${disordered} out of order, ${resets} resets: please report this`);
  } else if (waiting > 0) {
    say('wait', `${sent} messages sent, ${waiting} deliveries on the way; nothing missing, nothing twice`);
  } else if (sent > 0) {
    say('good', `${sent} messages sent, and everyone has each of theirs once, in order (${received} deliveries)`);
  }
}

// --- Switches ---

const fleet = new Fleet(find('fleet'), find('fleet-note'), ({ edges }) => {
  const words = ['no', 'one', 'two', 'three', 'four'];
  find('edges').textContent = `${words[edges.length] ?? edges.length} server${edges.length === 1 ? '' : 's'}`;
});

function burst() {
  order('patient', 'burst', { chats: 80 });
  order('doctor', 'burst', { chats: 80, orders: 40 });
}
find('burst').addEventListener('click', burst);

find('story').addEventListener('click', async ({ currentTarget: button }) => {
  button.disabled = true;
  const say = (text) => {
    find('lead').hidden = text !== '';
    find('caption').hidden = text === '';
    find('caption').textContent = text;
  };
  const settled = () => ledger.sum().waiting === 0 && ROLES.every((role) => panes.get(role).facts.state === 'live');
  const edgeOf = (role) => panes.get(role).facts.edge;
  await tellStory({ order, burst, fleet, settled, edgeOf, say });
  button.disabled = false;
});
draw();
