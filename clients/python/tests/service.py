"""A controller for tests: the socket, the words and the manners of the real one, and errors on demand.

It knows the methods and their parameters from the interface file of the real one, and refuses what is not there.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

INTERFACE = "dev.plimsoll.Control"
INTERFACE_FILE = pathlib.Path(__file__).parents[3] / "controller/src/control/dev.plimsoll.Control.varlink"
GIB = 1 << 30

Answer = dict[str, Any]


def methods() -> dict[str, tuple[set[str], set[str]]]:
    """Of each method the names of the parameters that it needs, and of those that it may be given."""
    text = re.sub(r"#.*", "", INTERFACE_FILE.read_text())
    found = {}
    for name, parameters in re.findall(r"method (\w+)\((.*?)\) ->", text):
        flat = re.sub(r"\([^()]*\)", "", parameters)
        pairs = [pair.split(":") for pair in flat.split(",") if pair.strip()]
        needed = {name.strip() for name, kind in pairs if not kind.strip().startswith("?")}
        found[name] = (needed, {name.strip() for name, _ in pairs})
    return found


class Refusal(Exception):
    """An error of the interface."""

    def __init__(self, name: str, **parameters: Any) -> None:
        super().__init__(name)
        self.name = name if "." in name else f"{INTERFACE}.{name}"
        self.parameters = parameters


class Service:
    """Listens until it is stopped; all calls that came in are kept."""

    def __init__(self, path: Optional[str] = None) -> None:
        self._dir = tempfile.TemporaryDirectory() if path is None else None
        self.path = path or f"{self._dir.name if self._dir else ''}/control.sock"
        self.calls: list[tuple[str, Answer]] = []
        self.available = 16 * GIB
        self.reserved: dict[int, int] = {}
        self.answers: dict[str, Callable[[Answer], Answer]] = {}
        self._changed = threading.Condition()
        self._known = methods()
        self._streams: dict[int, socket.socket] = {}
        self._open: set[socket.socket] = set()
        self._numbers = iter(range(1, 10**6))
        self._listener: Optional[socket.socket] = None
        self.start()

    def start(self) -> None:
        """Begins, or begins again as after a restart: whatever was reserved and registered is forgotten."""
        pathlib.Path(self.path).unlink(missing_ok=True)
        self.reserved = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Hangs up on everybody and removes the socket."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        pathlib.Path(self.path).unlink(missing_ok=True)
        with self._changed:
            opened, self._streams = list(self._open), {}
        for stream in opened:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """For the end of a test."""
        self.stop()
        if self._dir is not None:
            self._dir.cleanup()

    # -- what a test says --

    def notify(self, **notice: Any) -> None:
        """Tells all who subscribed."""
        with self._changed:
            streams = list(self._streams.values())
        for stream in streams:
            with contextlib.suppress(OSError):
                _send(stream, {"parameters": {"notice": notice}, "continues": True})

    def request(self, level: str, *, seconds: float = 5.0, wanted: int = 0, resources: Any = ("host",)) -> int:
        """Asks all who registered; returns the number."""
        number = next(self._numbers)
        body = {
            "id": number,
            "level": level,
            "resources": list(resources),
            "bytes": wanted,
            "deadlineMilliseconds": round(seconds * 1000),
            "reason": "a test",
        }
        self.notify(kind="request", request=body)
        return number

    def asked(self, level: str, **how: Any) -> Answer:
        """Asks, and returns the answer."""
        number = self.request(level, **how)
        return self.answer(number, how.get("seconds", 5.0) + 3)

    def answer(self, number: int, seconds: float = 5.0) -> Answer:
        """The answer to a request."""
        found = self.wait("Acknowledge", lambda call: call["request"] == number, seconds)
        assert found is not None, f"no answer to request {number}"
        return found

    def wait(
        self, method: str, fits: Callable[[Answer], bool] = lambda _: True, seconds: float = 5.0
    ) -> Optional[Answer]:
        """The first call of a method that fits, None where it does not come."""

        def find() -> Optional[Answer]:
            return next((given for name, given in self.calls if name == method and fits(given)), None)

        with self._changed:
            self._changed.wait_for(lambda: find() is not None, seconds)
            return find()

    def registered(self, times: int = 1, seconds: float = 5.0) -> Answer:
        """What was offered last, once so many registrations are in force."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self._streams) >= times, seconds)
            assert there, f"{len(self._streams)} of {times} registered"
            return [given for name, given in self.calls if name == "Register"][-1]

    def offered(self, fits: Callable[[Answer], bool], seconds: float = 5.0) -> Answer:
        """A registration that fits and is in force."""
        found = self.wait("Register", fits, seconds)
        assert found is not None, self.calls
        self.registered()
        return found

    def count(self, method: str) -> int:
        """How many calls of a method there were."""
        with self._changed:
            return sum(name == method for name, _ in self.calls)

    # -- what a client hears --

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = listener.accept()
                with self._changed:
                    self._open.add(stream)
                threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        held: set[int] = set()
        session: Optional[int] = None
        with contextlib.suppress(OSError), stream:
            for call in _messages(stream):
                try:
                    name, given = self._checked(call)
                    if name == "Register":
                        session = next(self._numbers)
                    answer = self._answer(name, given, held, session)
                except Refusal as refusal:
                    answer = {"error": refusal.name, "parameters": refusal.parameters}
                    name, given = "", {}
                with self._changed:
                    if name:
                        self.calls.append((name, given))
                    if name == "Subscribe" and session is not None:
                        self._streams[session] = stream
                    self._changed.notify_all()
                if not call.get("oneway") and name != "Subscribe":
                    _send(stream, answer)
        with self._changed:
            self._open.discard(stream)
            if session is not None:
                self._streams.pop(session, None)
            for number in held:
                self.reserved.pop(number, None)
            self._changed.notify_all()

    def _checked(self, call: Answer) -> tuple[str, Answer]:
        interface, _, name = call["method"].rpartition(".")
        if interface != INTERFACE or name not in self._known:
            raise Refusal("org.varlink.service.MethodNotFound", method=call["method"])
        given = call.get("parameters", {})
        needed, known = self._known[name]
        for parameter in sorted(needed - set(given)):
            raise Refusal("BadParameter", parameter=parameter, message="is missing")
        for parameter in sorted(set(given) - known):
            raise Refusal("BadParameter", parameter=parameter, message="is not known")
        return name, given

    def _answer(self, name: str, given: Answer, held: set[int], session: Optional[int]) -> Answer:
        if name in self.answers:
            return {"parameters": self.answers[name](given)}
        if name == "Register":
            return {"parameters": {"session": session, "workload": "test", "priority": 0, "protected": False}}
        if name == "Reserve":
            return {"parameters": self._reserve(given, held)}
        if name in ("Commit", "Release"):
            self._of(given)
            with self._changed:
                self.reserved.pop(given["id"])
                held.discard(given["id"])
                self._changed.notify_all()
            return {"parameters": {} if name == "Release" else {"unsettled": 0, "ttlSeconds": 1}}
        if name in ("Amend", "Heartbeat"):
            self._of(given)
            self.reserved[given["id"]] = given.get("size", self.reserved[given["id"]])
            return {"parameters": {"unsettled": 0, "ttlSeconds": 1}}
        if name == "Headroom":
            return {"parameters": self._headroom()}
        if name == "ReportCudaError":
            return {"parameters": {"advice": "retry", "waitMilliseconds": 0}}
        if name == "ReportOom":
            return {"parameters": {"marginPercent": 8}}
        if name == "Self":
            return {"parameters": {"workload": "test", "rung": "free", "level": "nothing", "tiers": {"host": "normal"}}}
        return {"parameters": {}}

    def _of(self, given: Answer) -> None:
        if given["id"] not in self.reserved:
            raise Refusal("NoSuchReservation", id=given["id"])

    def _headroom(self) -> Answer:
        reserved = sum(self.reserved.values())
        room = max(0, self.available - reserved)
        return {
            "tier": "normal",
            "available": room,
            "reserved": reserved,
            "margin": GIB,
            "admissible": max(0, room - GIB),
            "gpus": {"GPU-1": {"tier": "normal", "available": 8 * GIB, "reserved": 0, "admissible": 7 * GIB}},
        }

    def _reserve(self, given: Answer, held: set[int]) -> Answer:
        end, listener = time.monotonic() + given.get("waitSeconds", 0), self._listener
        with self._changed:
            while True:
                if self._listener is not listener:
                    raise ConnectionResetError
                for size in given["sizes"]:
                    fits = size <= self._headroom()["admissible"]
                    if fits and all(wanted <= 7 * GIB for wanted in given.get("gpus", {}).values()):
                        number = next(self._numbers)
                        self.reserved[number] = size
                        held.add(number)
                        return {
                            "id": number,
                            "size": size,
                            "promised": size,
                            "gpus": given.get("gpus", {}),
                            "ttlSeconds": 1,
                        }
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, 0.1))
        raise Refusal(
            "Refused",
            reason="no_room",
            message="no room at all",
            asked=min(given["sizes"]),
            promised=0,
            available=self._headroom()["available"],
            margin=GIB,
            tier="normal",
            retrySeconds=10,
        )


def _messages(stream: socket.socket) -> Iterator[Answer]:
    pending = b""
    while data := stream.recv(65536):
        pending += data
        *whole, pending = pending.split(b"\0")
        yield from (json.loads(message) for message in whole)


def _send(stream: socket.socket, message: Answer) -> None:
    stream.sendall(json.dumps(message).encode() + b"\0")
