// The servers, as `rejoin dev` sees them, and the buttons that break them.

const POLL_MS = 700;
const TONES = { up: 'good', starting: 'wait', draining: 'wait', down: 'bad' };

export class Fleet {
  /** `onChange` hears of every new view. */
  constructor(root, note, onChange) {
    this.root = root;
    this.note = note;
    this.onChange = onChange;
    this.cards = new Map();
    this.where = new Map();
    void this.watch();
  }

  async watch() {
    for (;;) {
      try {
        this.controls ??= await this.find();
        if (this.controls) this.show(await (await this.ask('GET', '/fleet')).json());
        else return this.say('These controls are there when `rejoin dev` has started the edges.');
        this.silent = 0;
      } catch {
        // An edge on its way out may have answered; or everything has stopped.
        if (++this.silent > 3) this.say('The controls do not answer: has `rejoin dev` stopped?');
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async find() {
    const answer = await fetch('/dev/controls');
    if (answer.status === 404) return null;
    return answer.json();
  }

  ask(method, path) {
    const { url, token } = this.controls;
    return fetch(url + path, { method, headers: { authorization: `Bearer ${token}` }, signal: AbortSignal.timeout(3_000) });
  }

  async order(path, what) {
    if (!this.controls) return;
    this.say(what);
    const answer = await this.ask('POST', path).catch(() => undefined);
    if (answer?.status !== 202) this.say('That was not accepted; try again.');
  }

  say(text) {
    this.note.textContent = text;
  }

  show(view) {
    this.view = view;
    for (const { name, state } of view.edges) {
      this.card(name, name, state, [{ label: 'Kill it', danger: true, path: `/edges/${name}/kill`, say: `${name} got SIGKILL; it comes back after 2 s.` }]);
    }
    this.card('all', 'All edges', view.rolling ? 'draining' : '', [{ label: 'Roll all', path: '/edges/roll', say: 'One edge after another drains and is started again, as in a deploy.' }], view.rolling ? 'rolling' : '');
    this.card('nats', 'NATS', view.nats, [{ label: 'Restart', danger: true, path: '/nats/restart', say: 'nats-server got SIGKILL; it comes back after 1 s. Publishes wait.' }]);
    if (view.postgres) {
      const stop = { label: 'Stop', danger: true, path: '/postgres/stop', say: 'Postgres stops: live messages do not need it.' };
      const start = { label: 'Start', path: '/postgres/start', say: 'Postgres starts again.' };
      this.card('postgres', 'Postgres', view.postgres, [view.postgres === 'up' ? stop : start]);
    }
    this.onChange(view);
  }

  /** Which pane is on which edge. */
  place(where) {
    this.where = where;
    for (const [key, { who }] of this.cards) {
      const here = [...where].filter(([, { edge }]) => edge === key).map(([role, { name }]) => chip(role, name));
      if (here.length > 0 || who.dataset.edge) who.replaceChildren(...here);
    }
  }

  card(key, title, state, [{ label, danger, path, say }], text = state) {
    let card = this.cards.get(key);
    if (!card) {
      const root = document.createElement('div');
      root.className = 'part';
      root.innerHTML = '<header><h3></h3><span class="pill"></span></header><div class="who"></div><button type="button"></button>';
      const find = (selector) => root.querySelector(selector);
      card = { root, pill: find('.pill'), who: find('.who'), button: find('button') };
      find('h3').textContent = title;
      card.button.addEventListener('click', () => this.order(card.path, card.say));
      const about = { all: 'one after another', nats: 'the messages', postgres: 'the archive' };
      if (about[key]) card.who.textContent = about[key];
      else card.who.dataset.edge = key;
      this.cards.set(key, card);
      this.root.append(root);
      this.place(this.where);
    }
    Object.assign(card, { path, say });
    if (card.button.textContent !== label) card.button.textContent = label;
    card.button.setAttribute('aria-label', `${label}: ${title}`);
    card.button.classList.toggle('danger', danger === true);
    card.button.disabled = key === 'all' ? this.view.rolling : state === 'down' && key !== 'postgres';
    card.pill.hidden = !text;
    card.pill.textContent = text;
    card.pill.dataset.tone = TONES[state] ?? '';
    card.root.dataset.part = key;
    card.root.dataset.state = state;
  }
}

function chip(role, name) {
  const made = document.createElement('span');
  made.className = 'chip';
  made.dataset.role = role;
  made.textContent = name;
  return made;
}
