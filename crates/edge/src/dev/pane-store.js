// What a pane keeps: what it has received and what it has sent. It survives a reload, as an app's own database
// would, and is where the page's counters come from.

const wait = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export class PaneStore {
  static async open(name) {
    const request = indexedDB.open(`rejoin-clinic-${name}`, 1);
    request.onupgradeneeded = () => {
      // A message is kept under its position: handling it again changes nothing.
      request.result.createObjectStore('received', { keyPath: ['channel', 'cursor'] });
      request.result.createObjectStore('sent', { keyPath: 'id' });
    };
    const store = new PaneStore();
    store.db = await wait(request);
    store.received = (await store.all('received')).sort((a, b) => a.order - b.order);
    store.sent = new Map((await store.all('sent')).map((entry) => [entry.id, entry]));
    store.keys = new Set(store.received.map(key));
    store.ids = new Set(store.received.map(idKey));
    return store;
  }

  /** Whether a message of this sender has come in. */
  has(channel, sender, id) {
    return this.ids.has(idKey({ channel, sender, id }));
  }

  all(name) {
    return wait(this.db.transaction(name).objectStore(name).getAll());
  }

  put(name, value) {
    return new Promise((resolve, reject) => {
      const transaction = this.db.transaction(name, 'readwrite');
      transaction.objectStore(name).put(value);
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
  }

  /** Resolves once it is kept, with what it is: `new`, `again` (the same position), or `duplicate` (the same message
   * at another position, which must never be). */
  async receive(message) {
    if (this.keys.has(key(message))) return 'again';
    const known = message.id !== undefined && this.ids.has(idKey(message));
    const entry = { ...message, order: this.received.length };
    await this.put('received', entry);
    this.keys.add(key(message));
    this.ids.add(idKey(message));
    this.received.push(entry);
    return known ? 'duplicate' : 'new';
  }

  /** Keeps what was sent, and later where it was stored. */
  async send(entry) {
    const whole = { ...this.sent.get(entry.id), ...entry };
    this.sent.set(entry.id, whole);
    await this.put('sent', whole);
    return whole;
  }
}

const key = ({ channel, cursor }) => `${channel} ${cursor}`;
/** Ids are of their publisher, and one per channel. */
const idKey = ({ channel, sender = '', id }) => `${channel} ${sender} ${id}`;
