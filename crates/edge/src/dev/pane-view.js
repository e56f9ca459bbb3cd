// What a pane shows. It knows nothing of the client.

/** Older lines leave the page; they stay in the pane's store. */
const LINES_MAX = 250;

export const TONES = { live: 'good', catchingUp: 'wait', connecting: 'wait', connected: 'wait', offline: 'bad', closed: 'bad' };
const STATES = { catchingUp: 'catching up' };

export class PaneView {
  constructor(cast, role) {
    document.body.dataset.role = role;
    const find = (id) => document.getElementById(id);
    for (const id of ['state', 'edge', 'transport', 'cursor', 'airplane', 'unread', 'list', 'outbox', 'form', 'text', 'prescribe', 'reload']) {
      this[id] = find(id);
    }
    const { name, title, empty, chats, prescribes } = cast[role];
    document.title = `${name} · Rejoin clinic`;
    find('name').textContent = name;
    find('title').textContent = title;
    document.querySelector('.face').textContent = name.replace('Dr. ', '')[0];
    this.list.dataset.empty = empty;
    this.prescribe.hidden = !prescribes;
    if (!chats) {
      const hint = document.createElement('p');
      hint.textContent = 'Orders arrive in this inbox. “Ready” tells patient and doctor.';
      this.form.replaceChildren(hint);
    }
    this.cast = cast;
    this.role = role;
    this.waiting = new Map();
  }

  showState(state, airplane, retryInMs) {
    let text = STATES[state] ?? state;
    if (airplane) text = 'airplane mode';
    else if (state === 'offline' && retryInMs !== undefined) text = `retry in ${Math.ceil(retryInMs / 1000)} s`;
    this.state.textContent = text;
    this.state.dataset.state = state;
    this.state.dataset.tone = airplane ? 'bad' : TONES[state];
  }

  showFacts({ edge, transport, cursor, unread }) {
    this.edge.textContent = edge ?? 'no server';
    this.transport.textContent = transport && edge ? `over ${transport}` : '';
    this.cursor.textContent = cursor ? shortCursor(cursor) : '–';
    this.cursor.title = cursor ?? '';
    this.unread.textContent = `${unread} unread`;
    this.unread.toggleAttribute('data-some', unread > 0);
  }

  /** A message. `actions` are buttons of a card: label and what to do. */
  message(message, from, actions = []) {
    const { type, data, time, cursor, replayed } = message;
    const line = document.createElement('li');
    line.className = 'line';
    line.classList.toggle('mine', from === this.role);
    line.classList.toggle('card', type !== 'chat');
    line.classList.toggle('replayed', replayed);
    line.dataset.id = message.id ?? '';
    line.dataset.from = from ?? '';
    line.dataset.channel = message.channel;
    const meta = element('div', 'meta');
    meta.append(element('b', '', this.cast[from]?.name ?? from ?? 'a service'));
    const late = replayed ? ' · caught up' : '';
    const seq = Number(cursor.split('-')[1]);
    meta.append(element('span', '', `${clock(time)}${late} · #${seq}`));
    const row = element('div', 'row');
    row.append(element('span', '', this.textOf(message)));
    for (const { label, done, act } of actions) {
      const button = element('button', '', label);
      button.type = 'button';
      const finish = () => {
        button.disabled = true;
        button.textContent = '✓ told';
      };
      if (done) finish();
      button.addEventListener('click', () => {
        finish();
        act();
      });
      row.append(button);
    }
    line.append(meta, row);
    line.dataset.seq = seq;
    this.append(line, cursor.split('-')[0]);
  }

  textOf({ type, data }) {
    if (type === 'prescription') return `℞ ${data.medicine}, ${data.dose}`;
    if (type === 'notice') return `Inbox: Leo has your prescription for ${data.medicine}`;
    if (type === 'ready') return `Inbox: ${data.medicine} is ready to be picked up`;
    return typeof data?.text === 'string' ? data.text : JSON.stringify(data);
  }

  note(text, tone = '') {
    const line = element('li', 'note', text);
    line.dataset.tone = tone;
    this.append(line);
    return line;
  }

  /** Lines of one epoch stand in the order of the log: two channels that catch up side by side mix otherwise. */
  append(line, epoch = '') {
    const { list } = this;
    line.dataset.epoch = epoch;
    this.stayAtEnd();
    let before = null;
    for (let at = list.lastElementChild; at && epoch; at = at.previousElementSibling) {
      if (at.dataset.epoch !== epoch || Number(at.dataset.seq) < Number(line.dataset.seq)) break;
      before = at;
    }
    list.insertBefore(line, before);
  }

  /** Whoever looks at the newest line goes on seeing it. Read once for many changes: laying out for each would make a
   * burst slow. */
  stayAtEnd() {
    const { list } = this;
    if (this.scrolling) return;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    this.scrolling = true;
    setTimeout(() => {
      this.scrolling = false;
      while (list.children.length > LINES_MAX) list.firstElementChild.remove();
      if (atEnd) list.scrollTop = list.scrollHeight;
    }, 16);
  }

  /** What is not acknowledged yet: the newest of it, and how much more there is. */
  showOutbox(entries) {
    const shown = entries.slice(-2).map(({ text }) => element('li', '', `◷ ${text}`));
    if (entries.length > 2) shown.unshift(element('li', '', `◷ ${entries.length - 2} more wait to be sent`));
    this.stayAtEnd();
    this.outbox.replaceChildren(...shown);
  }
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function shortCursor(cursor) {
  const [epoch, seq] = cursor.split('-');
  return `${epoch.slice(0, 4)}…-${seq}`;
}

function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
}
