"""Drives the Autobahn test suite's cases against a server that echoes.

A case says what to send, when, and which events are right; this is the peer that sends it and tells it what came. It
does what the suite's own fuzzing client does (`failByDrop` off): a failed connection gets a close frame, and the
server has a second for each step of the closing handshake.
"""

import argparse
import asyncio
import base64
import collections
import hashlib
import os
import re
import struct
import subprocess
import sys
import time

import cases
from cases import WebSocketProtocol

# Time for the peer's close frame, and then for it to close the connection, in seconds. The suite gives one each; a
# machine that is busy with something else must not fail a case.
CLOSE_HANDSHAKE_S = 5
SERVER_DROP_S = 5
# No case of the suite takes longer than this on a slow machine, in seconds.
CASE_S = 300
# What waits to be sent before the sender waits for the socket, in bytes.
SEND_BUFFER_BYTES = 256 * 1024
GOOD = ("OK", "INFORMATIONAL")
OPENING_KEY_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Peer(WebSocketProtocol):
    """One connection of a case, with the names that cases know it by."""

    class factory:
        isServer = False

    def __init__(self, case_class):
        self.state = self.STATE_CONNECTING
        self.connectionWasOpen = self.closedByMe = self.failedByMe = self.droppedByMe = self.wasClean = False
        self.localCloseCode = self.localCloseReason = self.remoteCloseCode = self.remoteCloseReason = None
        self.createWirelog = True
        self.autoFragmentSize = 0
        self.txFrameStats = collections.Counter()
        self.violation = None
        self.outgoing = collections.deque()
        self.wake = asyncio.Event()
        self.timers = []
        self.message = None
        self.case = case_class(self)

    # What cases call.

    def enableWirelog(self, enable):
        self.createWirelog = enable

    def continueLater(self, delay, function, tag=None):
        self.later(delay, lambda: self.state != self.STATE_CLOSED and function())

    def killAfter(self, delay):
        self.later(delay, lambda: self.failConnection())

    def closeAfter(self, delay):
        self.later(delay, lambda: self.sendClose())

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False):
        if self.state != self.STATE_OPEN:
            return
        opcode = 2 if isBinary else 1
        size = fragmentSize or self.autoFragmentSize or max(len(payload), 1)
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [""]
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            self.sendFrame(opcode if index == 0 else 0, piece, fin=last)

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        payload = payload.encode("latin-1")
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        self.txFrameStats[opcode] += 1
        frame = header(opcode, len(payload), fin, rsv) + masked(payload, 0)
        if chopsize:
            self.outgoing.extend(frame[at : at + chopsize] for at in range(0, len(frame), chopsize))
        else:
            self.outgoing.append(frame)
        self.wake.set()

    def beginMessage(self, isBinary=False):
        self.frame_opcode = 2 if isBinary else 1

    def beginMessageFrame(self, length):
        self.frame_sent = 0
        self.txFrameStats[self.frame_opcode] += 1
        self.outgoing.append(header(self.frame_opcode, length, fin=False, rsv=0))
        self.wake.set()

    def sendMessageFrameData(self, payload, sync=False):
        self.outgoing.append(masked(payload.encode("latin-1"), self.frame_sent))
        self.frame_sent += len(payload)
        self.wake.set()

    def endMessage(self):
        self.sendFrame(0)

    def sendClose(self, code=None, reason=None):
        self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code=None, reasonUtf8=None, is_reply=False):
        if self.state != self.STATE_OPEN:
            return
        payload = "" if code is None else struct.pack("!H", code).decode("latin-1")
        self.sendFrame(8, payload + (reasonUtf8 or ""))
        self.state = self.STATE_CLOSING
        self.closedByMe = not is_reply
        self.localCloseCode, self.localCloseReason = code, reasonUtf8
        if self.closedByMe:
            self.later(CLOSE_HANDSHAKE_S, lambda: self.wasClean or self.drop())

    # What happens to the connection.

    def later(self, delay, function):
        self.timers.append(asyncio.get_running_loop().call_later(delay, function))

    def failConnection(self):
        if self.state == self.STATE_OPEN:
            self.failedByMe = True
            self.sendCloseFrame(self.CLOSE_STATUS_CODE_GOING_AWAY, "Going Away")

    def drop(self):
        if self.state != self.STATE_CLOSED:
            self.droppedByMe = True
            self.wasClean = False
            self.writer.transport.abort()

    def on_frame(self, first, second, payload):
        fin, rsv, opcode = first & 0x80, first & 0x70, first & 0x0F
        control = opcode >= 8
        if rsv or second & 0x80 or opcode not in (0, 1, 2, 8, 9, 10) or control and (not fin or len(payload) > 125):
            self.violation = f"the server sent the frame header {first:02x} {second:02x}"
        elif opcode == 8:
            self.on_close(payload)
        elif opcode == 9:
            self.case.onPing(payload.decode("latin-1"))
            self.sendFrame(10, payload.decode("latin-1"))
        elif opcode == 10:
            self.case.onPong(payload.decode("latin-1"))
        elif (opcode == 0) == (self.message is None):
            self.violation = "the server mixed up the frames of two messages"
        else:
            self.message = self.message or (opcode, [])
            self.message[1].append(payload)
            if fin:
                (opcode, pieces), self.message = self.message, None
                self.on_message(opcode, b"".join(pieces))

    def on_message(self, opcode, payload):
        if opcode == 1:
            try:
                payload.decode("utf-8")
            except UnicodeDecodeError:
                self.violation = "the server sent a text that is not UTF-8"
        if not self.failedByMe:
            self.case.onMessage(payload.decode("latin-1"), opcode == 2)

    def on_close(self, payload):
        if len(payload) == 1:
            self.violation = "the server sent half a close code"
        self.remoteCloseCode = struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else None
        self.remoteCloseReason = payload[2:].decode("utf-8", "replace")
        self.wasClean = True
        self.case.onClose(True, self.remoteCloseCode, self.remoteCloseReason)
        self.sendCloseFrame(self.CLOSE_STATUS_CODE_NORMAL, is_reply=True)
        self.later(SERVER_DROP_S, self.drop)

    async def run(self, address, subprotocol):
        self.reader, self.writer = await asyncio.open_connection(*address)
        self.writer.transport.set_write_buffer_limits(SEND_BUFFER_BYTES)
        await self.handshake(address, subprotocol)
        self.state, self.connectionWasOpen = self.STATE_OPEN, True
        sender = asyncio.ensure_future(self.send())
        try:
            self.case.onOpen()
            while True:
                first, second = await self.reader.readexactly(2)
                length = second & 0x7F
                if length >= 126:
                    width, code = (2, "!H") if length == 126 else (8, "!Q")
                    (length,) = struct.unpack(code, await self.reader.readexactly(width))
                self.on_frame(first, second, await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.state = self.STATE_CLOSED
            sender.cancel()
            for timer in self.timers:
                timer.cancel()
            self.writer.transport.abort()
        self.case.onConnectionLost(self.failedByMe)

    async def handshake(self, address, subprotocol):
        key = base64.b64encode(os.urandom(16))
        self.writer.write(
            f"GET / HTTP/1.1\r\nHost: {address[0]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode()
        )
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        accept = base64.b64encode(hashlib.sha1(key + OPENING_KEY_SUFFIX).digest()).decode()
        headers = {name.lower(): value for name, value in re.findall(r"(?m)^([^:\r\n]+): *(.*?)\r$", answer)}
        expected = {"sec-websocket-accept": accept, "sec-websocket-protocol": subprotocol}
        if not answer.startswith("HTTP/1.1 101 ") or expected.items() - headers.items():
            raise ConnectionError(f"the handshake was not answered: {answer}")

    async def send(self):
        while True:
            while self.outgoing:
                self.writer.write(self.outgoing.popleft())
                try:
                    await self.writer.drain()
                except ConnectionError:
                    self.outgoing.clear()
            self.wake.clear()
            await self.wake.wait()


MASK = b"\x1b\x2c\x3d\x4e"


def masked(payload, offset):
    """Payload bytes from `offset` on of a frame, masked."""
    if not payload:
        return payload
    mask = (MASK[offset % 4 :] + MASK[: offset % 4]) * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(mask[: len(payload)], "big")
    return number.to_bytes(len(payload), "big")


def header(opcode, length, fin, rsv):
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if length < 126:
        return struct.pack("!BB", first, 0x80 | length) + MASK
    if length < 1 << 16:
        return struct.pack("!BBH", first, 0xFE, length) + MASK
    return struct.pack("!BBQ", first, 0xFF, length) + MASK


def subprotocol_of(case_class):
    """An edge takes either text or bytes on one connection, so each case gets what its first message is."""
    first = []

    class Probe(Peer):
        def sendFrame(self, opcode, *rest, **named):
            first.append(opcode)

        def sendMessage(self, payload, isBinary=False, **named):
            first.append(2 if isBinary else 1)

        def later(self, delay, function):
            pass

    probe = Probe(case_class)
    probe.state = probe.STATE_OPEN
    probe.case.onOpen()
    data = [opcode for opcode in first if opcode in (1, 2)]
    return "rejoin.v1.proto" if data[:1] == [2] else "rejoin.v1.json"


def id_of(case_class):
    return case_class.__name__[len("Case") :].replace("_", ".")


async def judge(case_class, address):
    peer = Peer(case_class)
    try:
        await asyncio.wait_for(peer.run(address, subprotocol_of(case_class)), CASE_S)
    except (asyncio.TimeoutError, OSError) as error:
        peer.violation = repr(error)
    behavior, close = peer.case.behavior, peer.case.behaviorClose
    if peer.violation:
        behavior = "FAILED"
    return behavior, close, peer


async def run(arguments, address):
    all_cases, groups = cases.load(arguments.suite)
    chosen = [it for it in all_cases if arguments.wants(id_of(it))]
    if not chosen:
        sys.exit("no such case")
    # Large messages one after the other, so that each has the machine; the others mostly wait.
    verdicts = {}

    async def one(case_class, slots):
        async with slots:
            begin = time.monotonic()
            behavior, close, peer = await judge(case_class, address)
            verdicts[id_of(case_class)] = behavior, close
            if arguments.verbose or behavior not in GOOD or close not in GOOD:
                result = peer.violation or peer.case.result
                print(f"{id_of(case_class)}: {behavior}, close {close} ({time.monotonic() - begin:.1f} s): {result}")
                print(f"    {peer.case.resultClose}; code {peer.remoteCloseCode}")
                if arguments.verbose:
                    print(f"    came {peer.case.received!r:.300}; expected {peer.case.expected!r:.300}")

    large, small = asyncio.Semaphore(1), asyncio.Semaphore(arguments.concurrency)
    await asyncio.gather(*(one(it, large if id_of(it).startswith("9.") else small) for it in chosen))
    return verdicts, groups


def print_table(verdicts, groups, took):
    by_group = collections.defaultdict(collections.Counter)
    for name, (behavior, close) in verdicts.items():
        both = [behavior, close]
        bad = [verdict for verdict in both if verdict not in GOOD]
        by_group[name.split(".")[0]][bad[0] if bad else behavior] += 1
    kinds = sorted({kind for counts in by_group.values() for kind in counts} - set(GOOD))
    print(f"{'group':<28}{'cases':>7}" + "".join(f"{kind:>18}" for kind in [*GOOD, *kinds]))
    for group in sorted(by_group, key=int):
        counts = by_group[group]
        cells = "".join(f"{counts[kind]:>18}" for kind in [*GOOD, *kinds])
        print(f"{group + ' ' + groups[group]:<28}{sum(counts.values()):>7}{cells}")
    bad = sum(counts[kind] for counts in by_group.values() for kind in kinds)
    # The form in which test runners close, which CI reads.
    print(f"autobahn: {len(verdicts) - bad} passed, {bad} failed, in {took:.0f} s")
    return bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", required=True, help="the folder of the suite's cases")
    parser.add_argument("--server", required=True, help="a program that echoes and prints its address")
    parser.add_argument("--groups", default="1-7,9,10")
    parser.add_argument("--case", action="append", help="only this case")
    parser.add_argument("--concurrency", type=int, default=16, help="small cases at the same time")
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    numbers = set()
    for part in arguments.groups.split(","):
        first, _, last = part.partition("-")
        numbers.update(map(str, range(int(first), int(last or first) + 1)))
    arguments.wants = lambda name: name in arguments.case if arguments.case else name.split(".")[0] in numbers
    with subprocess.Popen([arguments.server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        host, _, port = server.stdout.readline().strip().rpartition(":")
        begin = time.monotonic()
        verdicts, groups = asyncio.run(run(arguments, (host, int(port))))
        server.stdin.close()
    sys.exit(1 if print_table(verdicts, groups, time.monotonic() - begin) else 0)


if __name__ == "__main__":
    main()
