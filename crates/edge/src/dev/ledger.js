// Counts, by message id, what every pane has sent and what every pane has received. Pure: it trusts no counter of the
// client or the edges.

import { ROLES, channelsOf, isAtOrAfter } from './cast.js';

export class Ledger {
  constructor(visit) {
    /** id → { channel, cursor, by }; an id is used once. */
    this.sent = new Map();
    /** role → ids received, and how many messages there were that nobody here has sent. */
    this.panes = new Map(ROLES.map((role) => [role, { role, channels: channelsOf(role, visit), received: new Set(), positions: {}, trouble: {} }]));
  }

  /** Takes in a pane's report. */
  hear({ clinic, sent, received, positions, trouble }) {
    const pane = this.panes.get(clinic);
    for (const { id, channel, cursor } of sent) {
      const known = this.sent.get(id);
      this.sent.set(id, { channel, by: clinic, cursor: cursor ?? known?.cursor });
    }
    for (const { id, cursor, channel } of received) {
      pane.received.add(id ?? `${channel} ${cursor}`);
      const known = this.sent.get(id);
      // A message that came back is stored, whatever became of the answer to its sender.
      if (known) known.cursor ??= cursor;
    }
    pane.positions = positions;
    pane.trouble = trouble;
  }

  /** A row of the table. `missing`: its position is behind the pane's own, and it never came. */
  row(role) {
    const { channels, received, positions, trouble } = this.panes.get(role);
    const row = { sent: 0, received: received.size, waiting: 0, missing: 0, duplicated: trouble.duplicated ?? 0, disordered: trouble.disordered ?? 0 };
    for (const [id, { channel, cursor, by }] of this.sent) {
      if (by === role) row.sent++;
      if (!channels.includes(channel) || received.has(id)) continue;
      if (isAtOrAfter(positions[channel], cursor)) row.missing++;
      else row.waiting++;
    }
    return row;
  }

  /** All rows, and what to say about them. */
  sum() {
    const rows = Object.fromEntries(ROLES.map((role) => [role, this.row(role)]));
    const total = (name) => ROLES.reduce((sum, role) => sum + rows[role][name], 0);
    const sent = this.sent.size;
    const [received, waiting, missing, duplicated, disordered] = ['received', 'waiting', 'missing', 'duplicated', 'disordered'].map(total);
    return { rows, sent, received, waiting, missing, duplicated, disordered };
  }
}
