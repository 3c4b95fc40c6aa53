"""What is asked of a program, and what it answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Literal, Optional, Union

#: How much is asked for, gentlest first. ``restore`` takes back what was offloaded or unloaded.
Level = Literal["gc", "aggressive", "offload", "unload", "restore"]
#: How short a resource is: normal, elevated, constrained, critical, emergency.
Tier = str
#: How the protected workloads are: healthy, thrashing, emergency.
Thrash = str

TIERS = ("normal", "elevated", "constrained", "critical", "emergency")


@dataclass(frozen=True)
class Freed:
    """Bytes that were freed: of host memory (negative where memory moved there), and by GPU id."""

    host: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Freed) -> Freed:
        gpus = dict(self.gpus)
        for gpu, freed in other.gpus.items():
            gpus[gpu] = gpus.get(gpu, 0) + freed
        return Freed(self.host + other.host, gpus)

    def of(self, resource: str) -> int:
        """Bytes of ``host`` or of ``gpu:<id>``."""
        return self.host if resource == "host" else self.gpus.get(resource.removeprefix("gpu:"), 0)

    def parameters(self) -> dict[str, Any]:
        """As the interface's ``Gains``, in which memory moves to the host only."""
        return {"host": self.host, "gpus": {gpu: max(0, freed) for gpu, freed in self.gpus.items()}}

    @staticmethod
    def from_answer(answer: object) -> Optional[Freed]:
        """From what a callback returned: None, bytes of host memory, or Freed."""
        if answer is None or isinstance(answer, Freed):
            return answer
        if isinstance(answer, bool) or not isinstance(answer, int):
            raise TypeError(f"a callback returns None, a number of bytes or Freed, not {type(answer).__name__}")
        return Freed(host=answer)


Answer = Union[None, int, Freed]
#: What answers a request. A coroutine function needs ``plimsoll.aio``.
Callback = Callable[["Request"], Union[Answer, Awaitable[Answer]]]


@dataclass(frozen=True)
class Request:
    """Something is asked of this program.

    ``bytes`` is what is wanted of each of the ``resources`` (``host``, ``gpu:<id>``), 0 where nobody knows;
    ``deadline`` is on the clock of ``time.monotonic``.
    """

    id: int
    level: Level
    resources: tuple[str, ...] = ("host",)
    bytes: int = 0
    deadline: float = float("inf")
    reason: str = ""
    _withdrawn: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def withdrawn(self) -> bool:
        """Nobody wants it any more: what takes long may stop here."""
        return self._withdrawn.is_set()

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of the GPUs that are short."""
        return tuple(r.removeprefix("gpu:") for r in self.resources if r.startswith("gpu:"))

    @property
    def host(self) -> bool:
        """Whether host memory is short."""
        return "host" in self.resources

    def met(self, freed: Freed) -> bool:
        """Whether these bytes are what is wanted. Where nobody knows how much is wanted, any are."""
        wanted = max(1, self.bytes)
        return all(freed.of(resource) >= wanted for resource in self.resources)

    @staticmethod
    def read(given: Mapping[str, Any]) -> Request:
        """From a notice of the controller."""
        return Request(
            id=int(given["id"]),
            level=given["level"],
            resources=tuple(given.get("resources", ("host",))),
            bytes=int(given.get("bytes", 0)),
            deadline=time.monotonic() + int(given["deadlineMilliseconds"]) / 1000,
            reason=str(given.get("reason", "")),
        )


@dataclass(frozen=True)
class Outcome:
    """How a request ended: ``done``, ``partial``, ``failed`` or ``refused``, and why where it is not done."""

    outcome: Literal["done", "partial", "failed", "refused"]
    freed: Optional[Freed] = None
    message: Optional[str] = None


@dataclass(frozen=True)
class Shutdown:
    """This program's workload will be ended in ``seconds`` (0: at once), or the controller stops (``reason`` says
    so)."""

    seconds: float
    reason: str

    @staticmethod
    def read(given: Mapping[str, Any]) -> Shutdown:
        """From a notice of the controller."""
        return Shutdown(float(given.get("seconds", 0)), str(given.get("reason", "")))
