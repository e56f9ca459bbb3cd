"""A client that is not ours: Python's websockets and the standard library, written from docs/PROTOCOL.md alone.

Listens through a balancer without affinity, goes away, misses messages, comes back on another edge with its cursor,
and checks that it gets exactly what it missed, in order, then `live`, then new messages.

    stock_client.py HOST:PORT API_KEY TOKEN CHANNEL COUNT
"""

import asyncio
import json
import sys
import urllib.request

import websockets

address, api_key, token, channel, count = sys.argv[1:]
count = int(count)
PATIENCE_S = 30


def publish(texts):
    """Publishes in batches, as a service would."""
    for start in range(0, len(texts), 100):
        batch = [{"channel": channel, "type": "test", "data": {"text": text}} for text in texts[start : start + 100]]
        request = urllib.request.Request(
            f"http://{address}/v1/messages",
            data=json.dumps(batch).encode(),
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            results = json.load(response)["results"]
        assert all("cursor" in result for result in results), results


class Listener:
    """One connection: the rules for a position, as the protocol's page has them."""

    def __init__(self, socket, cursor):
        self.socket, self.cursor = socket, cursor
        self.edge, self.texts, self.live = None, [], False

    @classmethod
    async def connect(cls, cursor):
        socket = await websockets.connect(
            f"ws://{address}/v1/connect", subprotocols=["rejoin.v1.json"], compression=None
        )
        assert socket.subprotocol == "rejoin.v1.json"
        subscription = {"channel": channel, "from": cursor or "tail"}
        await socket.send(json.dumps({"req": 1, "connect": {"token": token, "subscriptions": [subscription]}}))
        return cls(socket, cursor)

    async def until(self, holds):
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await self.take(json.loads(await self.socket.recv()))

    async def take(self, frame):
        if "connected" in frame:
            self.edge = frame["connected"]["edge"]
        elif "subscribed" in frame:
            self.cursor = frame["subscribed"]["cursor"]
        elif "messages" in frame:
            batch = frame["messages"]
            for message in batch["messages"]:
                epoch, seq = self.cursor.split("-")
                if epoch == batch["epoch"]:
                    assert message["seq"] > int(seq), "a repeat"
                    assert message.get("prev", 0) <= int(seq), "a gap"
                self.cursor = f"{batch['epoch']}-{message['seq']}"
                self.texts.append(message["data"]["text"])
        elif "live" in frame:
            self.live, self.cursor = True, frame["live"]["cursor"]
        elif "ping" in frame:
            await self.socket.send(json.dumps({"pong": {}}))
        else:
            raise AssertionError(frame)


async def main():
    first = await Listener.connect(None)
    await first.until(lambda: first.live)
    before = [f"before-{n}" for n in range(10)]
    await asyncio.to_thread(publish, before)
    await first.until(lambda: len(first.texts) == len(before))
    assert first.texts == before
    await first.socket.close()

    missed = [f"missed-{n}" for n in range(count)]
    await asyncio.to_thread(publish, missed)
    for _ in range(10):
        second = await Listener.connect(first.cursor)
        await second.until(lambda: second.edge)
        if second.edge != first.edge:
            break
        await second.socket.close()
    assert second.edge != first.edge, "the balancer gave no other edge"
    await second.until(lambda: second.live)
    assert second.texts == missed, f"{len(second.texts)} of {count}"

    new = [f"new-{n}" for n in range(10)]
    await asyncio.to_thread(publish, new)
    await second.until(lambda: len(second.texts) == count + len(new))
    assert second.texts == missed + new
    await second.socket.close()
    print(f"{first.edge} -> {second.edge}: {count} missed messages in order, then live, then {len(new)} new ones")


asyncio.run(main())
