// Who may use a page: whoever has an administrative API key.
//
//   import { signIn } from './admin.js';
//   const admin = await signIn('Inspector');             // asks until the edge takes the key
//   const edges = await admin.json('/v1/…');             // throws an AdminError
//   const answer = await admin.fetch('/v1/…', { … });    // a Response, whatever its status
//   header.append(admin.badge());                        // who, where, and a button to sign out
//
// The key is kept in this tab's session storage, so that a reload does not ask again, and is sent in the header
// `Authorization` alone: never in a URL, a cookie or a form. On a development edge nothing is asked.

const STORED_AS = 'rejoin.admin-key';

/** The API's refusal: `code` and `message` are the edge's, `status` is HTTP's; 0 where the edge was not reached. */
export class AdminError extends Error {
  constructor(status, { code = 'unavailable', message = `HTTP ${status}`, retry_after_ms } = {}) {
    super(message);
    Object.assign(this, { name: 'AdminError', status, code, retryAfterMs: retry_after_ms });
  }
}

/** Resolves once the edge has taken a key: an earlier one of this tab, or what the person enters. */
export async function signIn(title) {
  const kept = sessionStorage.getItem(STORED_AS) ?? (await developmentKey());
  if (kept) {
    try {
      return await entered(kept);
    } catch (error) {
      if (error.status === 0) return ask(title, error, kept);
      sessionStorage.removeItem(STORED_AS);
    }
  }
  return ask(title);
}

/** What the API allows this key, and requests with it. */
class Admin {
  #key;

  constructor(key, self) {
    this.#key = key;
    /** `{ key, admin, read, publish, members, edge, version }`: docs/HTTP.md, "Who am I". */
    this.self = self;
  }

  /** As `fetch` for a path of this edge, with the key. */
  async fetch(path, { headers, ...options } = {}) {
    if (!path.startsWith('/') || path.startsWith('//')) throw new TypeError(`not a path of this edge: ${path}`);
    const sent = new Headers(headers);
    sent.set('Authorization', `Bearer ${this.#key}`);
    const answer = await fetch(path, { cache: 'no-store', credentials: 'omit', redirect: 'error', ...options, headers: sent });
    // The key was taken out of the configuration: what the page shows is not this person's any more.
    if (answer.status === 401) this.signOut();
    return answer;
  }

  /** The answer's JSON. `body`, if it is there, is sent as JSON. */
  async json(path, { body, ...options } = {}) {
    const sent = body === undefined ? options : { method: 'POST', ...options, body: JSON.stringify(body), headers: { 'Content-Type': 'application/json', ...options.headers } };
    let answer;
    try {
      answer = await this.fetch(path, sent);
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new AdminError(0, { message: 'the edge could not be reached' });
    }
    const parsed = await answer.json().catch(() => undefined);
    if (!answer.ok) throw new AdminError(answer.status, parsed?.error);
    return parsed;
  }

  /** Forgets the key, and everything on the page with it. */
  signOut() {
    sessionStorage.removeItem(STORED_AS);
    // Else a development edge would let in again at once.
    sessionStorage.setItem(`${STORED_AS}.left`, '1');
    location.reload();
  }

  /** For the page's header. */
  badge() {
    const badge = make('span', 'admin-badge');
    const leave = make('button', 'plain', 'Sign out');
    leave.type = 'button';
    leave.addEventListener('click', () => this.signOut());
    badge.append(make('span', 'admin-name', `${this.self.key} on ${this.self.edge}`), leave);
    return badge;
  }
}

/** Finds out whose key it is. Throws where it is nobody's, or not an administrator's. */
async function entered(key) {
  if (!/^[\x21-\x7e]+$/.test(key)) throw new AdminError(401, { code: 'unauthorized', message: 'An API key has no spaces in it.' });
  let answer;
  try {
    answer = await fetch('/v1/whoami', { cache: 'no-store', credentials: 'omit', redirect: 'error', headers: { Authorization: `Bearer ${key}` } });
  } catch {
    throw new AdminError(0, { message: 'The edge could not be reached.' });
  }
  const self = await answer.json().catch(() => undefined);
  if (answer.status === 401) throw new AdminError(401, { code: 'unauthorized', message: 'This edge does not know that key.' });
  if (!answer.ok) throw new AdminError(answer.status, self?.error);
  if (!self?.admin) throw new AdminError(403, { code: 'forbidden', message: 'That key is not administrative: its configuration needs admin = true.' });
  sessionStorage.setItem(STORED_AS, key);
  sessionStorage.removeItem(`${STORED_AS}.left`);
  return new Admin(key, self);
}

async function developmentKey() {
  if (!document.querySelector('meta[name="rejoin-dev"]') || sessionStorage.getItem(`${STORED_AS}.left`)) return undefined;
  const answer = await fetch('/dev/key').catch(() => undefined);
  return answer?.ok ? (await answer.json()).key : undefined;
}

function ask(title, error, key = '') {
  const dialog = make('dialog', 'admin-gate');
  dialog.setAttribute('aria-labelledby', 'admin-title');
  const form = make('form');
  const heading = make('h1', '', title);
  heading.id = 'admin-title';
  const label = make('label', '', 'Administrative API key');
  const field = Object.assign(make('input'), { type: 'password', name: 'key', required: true, autocomplete: 'off', spellcheck: false, value: key });
  field.setAttribute('aria-describedby', 'admin-hint admin-error');
  label.append(field);
  const hint = make('p', 'admin-hint', 'One with admin = true. It stays in this tab and is forgotten when the tab is closed.');
  hint.id = 'admin-hint';
  const told = make('p', 'admin-error', error?.message ?? '');
  told.id = 'admin-error';
  told.setAttribute('role', 'alert');
  const button = make('button', 'main', 'Sign in');
  form.append(heading, label, hint, told, button);
  dialog.append(form);
  // There is nothing behind it to go back to.
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      button.disabled = true;
      told.textContent = '';
      try {
        const admin = await entered(field.value.trim());
        dialog.remove();
        resolve(admin);
      } catch (refusal) {
        told.textContent = refusal.message;
        field.select();
      } finally {
        button.disabled = false;
      }
    });
  });
}

function make(tag, className = '', text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
