"""A running node between an SMSC and a gateway that none of us wrote, under traffic that their own encoders make.

Whatever PDU the far peer's package can decode arrives there as it was sent, byte for byte but for the sequence number,
is decoded there to the same values, and its response comes back the same way. Two simulators of ours could share a
misunderstanding; these two (npm `smpp` and python-smpplib) share nothing with us.

Commands, fields, UDH, alphabets and TLVs are random; every other PDU is one of the earlier ones with bytes of its body
changed, a TLV more, or its last octets as another TLV. What the far package cannot decode is counted and not sent: it
would deafen the peer, and says nothing about us. The taps and peers are those of the tests (tests/foreign_peer.py).
"""

import argparse
import json
import logging
import random
import struct
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import smpplib.smpp
import trio
from foreign.esme_any import Silent, decoded
from foreign_peer import HERE, ForeignPeer, Tap, npm_command
from node_process import PASSWORD, SYSTEM_ID, Settings, open_fleet

from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER

BATCH: Final = 100  # PDUs in each direction that are under way together
POOL: Final = 500  # earlier PDUs that may be changed
ANSWER_S: Final = 120.0  # for a whole batch, on a machine that does other things

SETTINGS: Final[Settings] = {
    # A report of no message of ours goes to the gateway, as without a ring: everything that is sent must arrive.
    "operators": {
        "observe": True,
        "window": 1000,
        "gateway_window": 1000,
        "gateway_answer_s": 60,
        "operator_answer_s": 90,
    },
}
DOWN: Final = ("deliver_sm", "deliver_sm", "deliver_sm", "data_sm", "alert_notification")
UP: Final = ("submit_sm", "submit_sm", "submit_sm", "data_sm", "query_sm", "cancel_sm", "replace_sm", "submit_multi",
             "broadcast_sm", "query_broadcast_sm", "cancel_broadcast_sm")  # fmt: skip
SMPPLIB: Final = frozenset({"submit_sm", "data_sm", "query_sm"})  # what the gateway's own package makes
OUR_OWN: Final = frozenset({c.ENQUIRE_LINK, c.UNBIND, *c.BINDS})  # the node's business with each peer

STATES: Final = ("DELIVRD", "UNDELIV", "EXPIRED", "REJECTD", "ACCEPTD", "ENROUTE", "FAILED", "")
CODINGS: Final = (0, 0, 0, 1, 3, 4, 8, 8, 0x10, 0xF5, 0xFF)
VENDOR_TAGS: Final = (0x1400, 0x1401, 0x1402, 0x2FFF, 0x3FFF, 0x0600, 0x5000)


class Maker:
    """What is to be sent: commands with fields, for a package to encode."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a seed makes it run again
        self.reports = 0

    def fields(self, command: str) -> dict[str, Any]:
        draw = self._random
        fields: dict[str, Any] = {
            "source_addr_ton": draw.randrange(7), "source_addr_npi": draw.randrange(20),
            "source_addr": self._address(), "service_type": draw.choice(("", "WAP", "CMT", "x")),
        }  # fmt: skip
        if command == "alert_notification":
            return {"source_addr": self._address(), "esme_addr": self._address()}
        if command in {"query_sm", "cancel_sm", "replace_sm"} or "broadcast" in command:
            fields["message_id"] = f"s{draw.randrange(1, 5000):x}"
        if command == "submit_multi":
            addresses = [self._address() or "1" for _ in range(draw.randrange(1, 4))]
            fields["dest_address"] = [
                {"destination_addr": it, "dest_addr_ton": 1, "dest_addr_npi": 1} for it in addresses
            ]
        elif command not in {"query_sm", "replace_sm"} and "broadcast" not in command:
            fields |= {"dest_addr_ton": draw.randrange(7), "dest_addr_npi": 1, "destination_addr": self._address()}
        if command in {"deliver_sm", "submit_sm", "data_sm", "submit_multi"}:
            fields |= {"esm_class": self._esm_class(), "registered_delivery": draw.randrange(32)}
            fields["data_coding"] = draw.choice(CODINGS)
        if command in {"deliver_sm", "submit_sm", "submit_multi"}:
            fields |= {"protocol_id": draw.randrange(256), "priority_flag": draw.randrange(4)}
            fields["short_message"] = self._text(fields["esm_class"], fields["data_coding"]).hex()
        return fields

    def tlvs(self) -> list[tuple[int, str]]:
        """Vendor TLVs, each once, of any length."""
        draw = self._random
        tags = draw.sample(VENDOR_TAGS, draw.choice((0, 0, 1, 2, 4)))
        return [(tag, draw.randbytes(draw.choice((0, 1, 2, 3, 17, 255, 300))).hex()) for tag in tags]

    def _address(self) -> str:
        alphabet = self._random.choice(("0123456789", "abcXYZ019 .-"))
        return "".join(self._random.choices(alphabet, k=self._random.randrange(21)))

    def _esm_class(self) -> int:
        return self._random.choice((0, 0, 4, 4, 8, 0x10, 0x18, 0x20, 0x40, 0x44, 0x80, 3, self._random.randrange(256)))

    def _text(self, esm_class: int, coding: int) -> bytes:
        draw = self._random
        kind = draw.randrange(4)
        if kind == 0:
            text = draw.randbytes(draw.randrange(140))
        elif kind == 1 or esm_class & 0x3C:
            self.reports += 1  # an id of its own: what is intermediate after a final report is not delivered
            written = (
                f"id:u{self.reports} sub:001 dlvrd:001 submit date:2401011200 stat:{draw.choice(STATES)} err:0 text:"
            )
            text = written.encode("utf-16-be" if coding == 8 else "ascii") + draw.randbytes(draw.randrange(20))
        else:
            text = "Grüße, привет".encode("utf-16-be" if coding == 8 else "utf-8")
        if esm_class & c.ESM_UDHI:
            header = bytes((5, 0, 3, draw.randrange(256), 2, draw.randrange(1, 3)))
            text = draw.choice((header, bytes((6, 8, 4, 1, 2, 3, 1)), bytes((draw.randrange(9),)))) + text
        return text[:254]

    def changed(self, frame: bytes) -> bytes:
        """Another PDU of the same command."""
        draw = self._random
        body = bytearray(frame[c.HEADER_SIZE :])
        for _ in range(draw.choice((0, 1, 1, 2, 5))):
            if body:
                body[draw.randrange(len(body))] = draw.choice((0, 1, 0x7F, 0xFF, draw.randrange(256)))
        if draw.randrange(2):
            value = draw.randbytes(draw.randrange(12))
            body += struct.pack(">HH", draw.choice((*VENDOR_TAGS, draw.randrange(0x10000))), len(value)) + value
        if draw.randrange(8) == 0:
            del body[draw.randrange(len(body) + 1) :]
        return HEADER.pack(c.HEADER_SIZE + len(body), HEADER.unpack_from(frame)[1], 0, 1) + body

    def choose(self, commands: Sequence[str]) -> str:
        return self._random.choice(commands)

    def one_of(self, pool: deque[bytes]) -> bytes | None:
        """A PDU to change; None: make a new one."""
        return self._random.choice(pool) if pool and self._random.randrange(2) else None


class Scene:
    """The peers, and what was sent and found."""

    def __init__(self, maker: Maker, smsc: ForeignPeer, esme: ForeignPeer, at_smsc: Tap, at_esme: Tap) -> None:
        self._maker = maker
        self._smsc, self._esme = smsc, esme
        self._at_smsc, self._at_esme = at_smsc, at_esme
        self._pools: dict[str, deque[bytes]] = {"up": deque(maxlen=POOL), "down": deque(maxlen=POOL)}
        self._tag = 0
        self.sent: Counter[str] = Counter()
        self.changed = self.undecodable = 0

    async def batch(self) -> list[str]:
        """Send so many in each direction; what went wrong."""
        up, down = await self._frames("up", UP), await self._frames("down", DOWN)
        seen_by_npm = await self._npm_decoded(up)
        up = [frame for frame, pdu in zip(up, seen_by_npm, strict=True) if pdu is not None]
        expected_up = [pdu for pdu in seen_by_npm if pdu is not None]
        seen_by_smpplib = [_smpplib_decoded(frame) for frame in down]
        down = [frame for frame, pdu in zip(down, seen_by_smpplib, strict=True) if pdu is not None]
        expected_down = [pdu for pdu in seen_by_smpplib if pdu is not None]
        self.undecodable += 2 * BATCH - len(up) - len(down)
        for peer, frames in ((self._esme, up), (self._smsc, down)):
            for frame in frames:
                await peer.do("raw", bytes=frame.hex())
        answered = [frame for frame in down if HEADER.unpack_from(frame)[1] != c.ALERT_NOTIFICATION]
        problems = await self._arrived(len(up), len(down), len(answered))
        problems += _differ("to the SMSC", _unnumbered(up), _requests(self._at_smsc.from_dialler()))
        problems += _differ("to the gateway", _unnumbered(down), _requests(self._at_esme.from_target()))
        problems += _differ("decoded by npm smpp", expected_up, _told(self._smsc))
        problems += _differ("decoded by python-smpplib", expected_down, _told(self._esme))
        problems += _differ(
            "back to the gateway", _responses(self._at_smsc.from_target()), _responses(self._at_esme.from_target())
        )
        problems += _differ(
            "back to the SMSC", _responses(self._at_esme.from_dialler()), _responses(self._at_smsc.from_dialler())
        )
        for way, frames in (("up", up), ("down", down)):
            self._pools[way].extend(frames)
            self.sent.update(f"{way} {c.COMMAND_NAMES.get(HEADER.unpack_from(frame)[1], 'other')}" for frame in frames)
        for tap in (self._at_smsc, self._at_esme):
            tap.forget()
        for peer in (self._smsc, self._esme):
            peer.events.clear()
        return problems

    async def _frames(self, way: str, commands: Sequence[str]) -> list[bytes]:
        frames: list[bytes] = []
        asked: list[int] = []
        for _ in range(BATCH):
            self._tag += 1
            if (base := self._maker.one_of(self._pools[way])) is not None:
                frames.append(self._maker.changed(base))
                self.changed += 1
                continue
            command = self._maker.choose(commands)
            fields = self._maker.fields(command)
            if way == "up" and command in SMPPLIB and self._tag % 2:
                frames.append(_made_by_smpplib(command, fields))
            else:
                asked.append(self._tag)
                await self._smsc.do("make", tag=self._tag, command=command, fields=fields, tlvs=self._maker.tlvs())
        for tag in asked:
            (event,) = await self._smsc.seen("made", tag=tag)
            frames.append(bytes.fromhex(event["bytes"]))
        return frames

    async def _npm_decoded(self, frames: Iterable[bytes]) -> list[str | None]:
        """As the SMSC's package would see them; None for what it cannot decode."""
        tags = []
        for frame in frames:
            self._tag += 1
            tags.append(self._tag)
            await self._smsc.do("decode", tag=self._tag, bytes=frame.hex())
        events = [(await self._smsc.seen("decoded", tag=tag))[0] for tag in tags]
        return [json.dumps(event["pdu"], sort_keys=True) if "pdu" in event else None for event in events]

    async def _arrived(self, up: int, down: int, answered: int) -> list[str]:
        """Wait for as many requests and responses as are due; what is missing is a problem."""
        problems = []
        for peer, event, count in (
            (self._smsc, "request", up), (self._esme, "request", down),
            (self._esme, "response", up), (self._smsc, "response", answered),
        ):  # fmt: skip
            if count:
                try:
                    await peer.seen(event, count=count, within_s=ANSWER_S)
                except AssertionError as error:
                    problems.append(str(error)[-1000:])
        return problems


def _made_by_smpplib(command: str, fields: dict[str, Any]) -> bytes:
    given = dict(fields)
    if "short_message" in given:
        given["short_message"] = bytes.fromhex(given["short_message"])
    pdu = smpplib.smpp.make_pdu(command, client=Silent(), **given)
    frame: bytes = pdu.generate()
    return frame


def _smpplib_decoded(frame: bytes) -> str | None:
    """As the gateway's package sees it; None for what it cannot decode."""
    try:
        return json.dumps(decoded(frame), sort_keys=True)
    except Exception:  # noqa: BLE001 - the package raises whatever its slicing and unpacking raise
        return None


def _told(peer: ForeignPeer) -> list[str]:
    return [json.dumps(event["pdu"], sort_keys=True) for event in peer.events if event["event"] == "request"]


def _requests(frames: Iterable[bytes]) -> list[str]:
    return _unnumbered(frame for frame in frames if _passes(frame) and not _command(frame) & c.RESPONSE_BIT)


def _responses(frames: Iterable[bytes]) -> list[str]:
    return _unnumbered(frame for frame in frames if _passes(frame) and _command(frame) & c.RESPONSE_BIT)


def _passes(frame: bytes) -> bool:
    return _command(frame) & ~c.RESPONSE_BIT not in OUR_OWN


def _command(frame: bytes) -> int:
    command: int = HEADER.unpack_from(frame)[1]
    return command


def _unnumbered(frames: Iterable[bytes]) -> list[str]:
    return [(frame[:12] + frame[16:]).hex() for frame in frames]


def _differ(what: str, expected: Sequence[str], found: Sequence[str]) -> list[str]:
    missing, surplus = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    return [f"{what}: missing {it}" for it in missing.elements()] + [
        f"{what}: not sent {it}" for it in surplus.elements()
    ]


async def play(minutes: float, seed: int) -> int:
    """One batch at least. The exit status."""
    deadline = trio.current_time() + 60 * minutes
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        async with trio.open_nursery() as nursery:
            smsc = ForeignPeer("npm smpp", npm_command("smsc_any.js"), nursery)
            await smsc.start()
            (listening,) = await smsc.seen("listening")
            at_smsc = Tap(listening["port"])
            await nursery.start(at_smsc.run)
            async with open_fleet(Path(directory), {"gw1": at_smsc.port}, SETTINGS) as fleet:
                await fleet.start()
                await smsc.seen("bound")
                at_esme = Tap(fleet.gateway_ports["gw1"])
                port = await nursery.start(at_esme.run)
                command = [sys.executable, str(HERE / "esme_any.py"), str(port), SYSTEM_ID, PASSWORD]
                esme = ForeignPeer("python-smpplib", command, nursery)
                await esme.start()
                await esme.seen("bound")
                scene = Scene(Maker(seed), smsc, esme, at_smsc, at_esme)
                problems = await scene.batch()
                while trio.current_time() < deadline and not problems:
                    problems = await scene.batch()
                if not problems:
                    await esme.stop()
                    await fleet.stop()
            nursery.cancel_scope.cancel()
    for command, count in sorted(scene.sent.items()):
        print(f"{command:26}{count:>9,}")
    print(f"total {scene.sent.total():,}; {scene.changed:,} changed, {scene.undecodable:,} not decodable and not sent")
    for problem in problems[:20]:
        print(problem)
    return int(bool(problems))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.foreign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0, help="0: another one every time")
    options = parser.parse_args()
    seed = options.seed or random.SystemRandom().randrange(1, 1 << 32)
    logging.disable()  # python-smpplib says a line for each TLV that it has no name for
    print(f"seed {seed}", flush=True)
    return trio.run(play, options.minutes, seed)


if __name__ == "__main__":
    sys.exit(main())
