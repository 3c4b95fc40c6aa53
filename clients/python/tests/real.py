"""A model server for the test of the real control socket: does what the lines on its input say, and tells what
happens to it.

Run by the controller's own tests, with ``PLIMSOLL_CONTROL`` naming their socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "src"))

import plimsoll

GIB = 1 << 30


def tell(what: str, **facts: Any) -> None:
    """One line of JSON."""
    os.write(1, json.dumps({"what": what, **facts}).encode() + b"\n")


class Server:
    """A model server without a model."""

    def __init__(self) -> None:
        self.client = client = plimsoll.Plimsoll()
        self.requests = contextlib.ExitStack()
        client.on_tier(lambda resource, old, new: tell("tier", resource=resource, old=old, new=new))
        client.on_shutdown(lambda shutdown: tell("shutdown", reason=shutdown.reason))
        client.on_trim(levels=["gc"], gains=100, takes=0.5)(self.trim)
        client.on_unload(gains=plimsoll.Freed(1000, {"GPU-a": 7}))(self.unload)
        client.on_restore(lambda request: tell("restore"))
        client.inflight()

    def trim(self, request: plimsoll.Request) -> int:
        """Says what it was asked."""
        tell("trim", level=request.level, bytes=request.bytes, reason=request.reason, host=request.host)
        return 42

    def unload(self, request: plimsoll.Request) -> plimsoll.Freed:
        """Frees what it said."""
        tell("unload", inside=self.client._gate.inside)
        return plimsoll.Freed(1000, {"GPU-a": 7})

    def serve(self) -> None:
        """A request begins."""
        self.requests.enter_context(self.client.inflight("raise"))
        tell("serving")

    def done(self) -> None:
        """All requests end."""
        self.requests.close()
        tell("served")

    def room(self) -> None:
        """Reserves, changes, commits, is refused."""
        with self.client.reserve(20 * GIB, value="large", degrade=[(8 * GIB, "small")]) as room:
            headroom = self.client.headroom()
            assert headroom is not None
            tell("granted", value=room.value, controlled=room.controlled, reserved=headroom.reserved)
            room.amend(6 * GIB)
            try:
                self.client.reserve(12 * GIB)
            except plimsoll.NoRoom as no:
                tell("refused", reason=no.reason, admissible=no.admissible, retry=no.retry_after, message=str(no))
        headroom = self.client.headroom()
        tell("committed", lost=room.lost, tier=headroom and headroom.tier)

    def cuda(self) -> None:
        """A CUDA call lacks memory, and works the second time."""
        guard, calls = self.client.cuda_guard(), []

        def infer() -> str:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("CUDA error: out of memory")
            return "ok"

        tell("inferred", result=guard.run(infer), calls=len(calls))

    def status(self) -> None:
        """How it stands."""
        tell("status", **(self.client.status() or {}))


def main() -> None:
    """One method for each line."""
    server = Server()
    for line in sys.stdin:
        getattr(server, line.strip())()
    server.client.close()
    tell("closed")


if __name__ == "__main__":
    main()
