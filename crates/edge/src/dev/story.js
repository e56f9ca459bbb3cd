// "Break everything for me": a conversation, and everything that can go wrong in the middle of it.

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
/** No step waits longer: whatever happens, the story ends. */
const PATIENCE_MS = 30_000;

export async function tellStory({ order, burst, fleet, settled, edgeOf, say }) {
  const until = async (condition) => {
    const end = Date.now() + PATIENCE_MS;
    while (!condition() && Date.now() < end) await sleep(100);
  };
  let step = 0;
  const act = async (text, action, ms = 2_200) => {
    say(`${++step} of 7 · ${text}`);
    await action();
    await sleep(ms);
  };
  const up = () => fleet.view?.edges.every(({ state }) => state === 'up') && !fleet.view.rolling;

  await act('Ana asks, Dr. Kim answers.', async () => {
    order('patient', 'say', 'Good morning, the cough is back.');
    await sleep(700);
    order('doctor', 'say', 'I am looking at your chart. Any fever?');
  });
  await act('Ana’s train enters a tunnel. What she writes waits on her phone.', async () => {
    order('patient', 'airplane', true);
    await sleep(700);
    order('patient', 'say', 'A little, since yesterday.');
  });
  await act('Dr. Kim prescribes. Leo hears of it, Ana cannot yet.', () => order('doctor', 'prescribe'));
  await act('200 messages are being sent. Now Dr. Kim’s server is killed.', async () => {
    burst();
    await sleep(400);
    await fleet.order(`/edges/${edgeOf('doctor') ?? 'edge-1'}/kill`, 'The edge got SIGKILL; it comes back after 2 s.');
  });
  await act('Leo reloads his page.', () => order('pharmacist', 'reload'));
  await act('The tunnel ends. Ana’s phone rejoins where it left off.', () => order('patient', 'airplane', false), 3_000);
  await until(up);
  await act('A new version is deployed: every server is restarted, one after another.', async () => {
    await fleet.order('/edges/roll', 'One edge after another drains and is started again.');
    order('patient', 'say', 'Thank you!');
    order('doctor', 'say', 'Get well soon.');
  });
  await until(() => up() && settled());
  say('That was it: look at the counters. Now try to break it yourself.');
}
