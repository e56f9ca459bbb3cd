// A network of this pane that can be switched off. In airplane mode nothing leaves and nothing arrives, new
// connections fail, and the page hears `offline`, as it would from the browser.

export class Network {
  constructor(down) {
    this.down = down;
    this.open = new Set();
    this.cutFetches = new AbortController();
    const network = this;
    /** As much of a WebSocket as the client uses. */
    this.WebSocket = class {
      onopen = null;
      onmessage = null;
      onclose = null;
      onerror = null;
      constructor(url, protocols) {
        if (network.down) {
          setTimeout(() => this.onclose?.({ code: 1006, reason: 'airplane mode' }), 20);
          return;
        }
        this.socket = new WebSocket(url, protocols);
        network.open.add(this);
        this.socket.onopen = (event) => this.pass('onopen', event);
        this.socket.onmessage = (event) => this.pass('onmessage', event);
        this.socket.onerror = (event) => this.pass('onerror', event);
        this.socket.onclose = (event) => {
          network.open.delete(this);
          this.pass('onclose', event);
        };
      }
      pass(name, event) {
        if (!this.cut) this[name]?.(event);
      }
      send(data) {
        // A socket that is closing would drop it as well, and complain.
        if (!this.cut && this.socket?.readyState === WebSocket.OPEN) this.socket.send(data);
      }
      close(code) {
        this.socket?.close(code);
      }
      cutOff() {
        this.cut = true;
        this.socket.close();
      }
    };
    this.fetch = async (input, init = {}) => {
      if (network.down) throw new TypeError('airplane mode');
      const signals = [network.cutFetches.signal, ...(init.signal ? [init.signal] : [])];
      return fetch(input, { ...init, signal: AbortSignal.any(signals) });
    };
  }

  set(down) {
    if (down === this.down) return;
    this.down = down;
    if (down) {
      for (const socket of this.open) socket.cutOff();
      this.cutFetches.abort(new TypeError('airplane mode'));
      this.cutFetches = new AbortController();
    }
    dispatchEvent(new Event(down ? 'offline' : 'online'));
  }
}
