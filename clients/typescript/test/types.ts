// What the compiler must accept and refuse; `tsc` is the test.

import { Rejoin, type Message, type RejoinState } from '../src/index.js';

interface Chat {
  text: string;
}

/** Never called. */
export async function typed(rejoin: Rejoin): Promise<void> {
  const sub = rejoin.subscribe<Chat>('room:1', {
    onMessage: ({ data, sender }) => [data.text, sender?.length],
    // @ts-expect-error a reset has no such field
    onReset: ({ nonsense }) => nonsense,
  });
  for await (const message of sub) {
    const same: Message<Chat> = message;
    // @ts-expect-error payloads have the type that was given
    same.data.nonsense;
  }
  rejoin.subscribe('room:2', {
    // @ts-expect-error without a type, a payload is unknown
    onMessage: ({ data }) => data.text,
  });
  const { id, cursor }: { id: string; cursor: string } = await rejoin.publish('room:1', { text: 'hi' }, { type: 'chat' });
  rejoin.on('live', ({ previous }) => previous satisfies RejoinState);
  rejoin.on('offline', ({ retryInMs }) => retryInMs?.toFixed());
  // @ts-expect-error there is no such event
  rejoin.on('nonsense', () => {});
  // @ts-expect-error a url is needed
  new Rejoin({ token: `${id}${cursor}` });
  const page = await rejoin.history<Chat>('room:1');
  page.messages[0]?.data.text;
}
