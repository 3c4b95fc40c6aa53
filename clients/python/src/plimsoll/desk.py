"""Carries out requests: one at a time, each answered once, and before its deadline."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Callable, Optional

from .callbacks import Registered, Registry
from .errors import Refuse
from .gate import Gate
from .request import Freed, Level, Outcome, Request

log = logging.getLogger("plimsoll")

#: Levels that a level includes, done after it: what it leaves behind is garbage only then.
LIGHTER: dict[Level, tuple[Level, ...]] = {
    "gc": (),
    "aggressive": ("gc",),
    "offload": ("gc",),
    "unload": ("gc",),
    "restore": (),
}
#: An answer has to arrive before the deadline: so much sooner it is given.
EARLY_SECONDS = 0.2
#: How long a worker thread without work stays.
IDLE_SECONDS = 10.0

#: Runs a callback to its end, on whichever thread or loop it belongs to.
Invoke = Callable[[Registered, Request], Optional[Freed]]
#: Tells the controller how a request ended.
Acknowledge = Callable[[Request, Outcome], None]


class Desk:
    """Where requests arrive, and the thread that works on them while there are any."""

    def __init__(
        self,
        registry: Registry,
        gate: Gate,
        invoke: Invoke,
        acknowledge: Acknowledge,
        stranded: Callable[[], None],
        idle: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._gate = gate
        self._invoke = invoke
        self._acknowledge = acknowledge
        self._stranded = stranded
        self._idle = idle
        #: What was given up: ``offload``, ``unload``, or None where everything is there.
        self.given_up: Optional[Level] = None
        self._whole = True
        self.after_fork()

    def after_fork(self) -> None:
        """What the parent was asked is the parent's to do; its thread is not here."""
        self._lock = threading.Lock()
        self._open: dict[int, _Asked] = {}
        self._queue: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        self._working = False

    @property
    def busy(self) -> bool:
        """Whether anything is being done or waits to be."""
        return bool(self._open)

    def arrive(self, request: Request) -> None:
        """Takes a request. It is answered even if a callback never returns."""
        asked = _Asked(request)
        with self._lock:
            if request.id in self._open:
                return
            self._open[request.id] = asked
            start, self._working = not self._working, True
            # Under the lock: a worker that finds nothing to do ends under it.
            self._queue.put(asked)
        try:
            asked.watch(self._late)
            if start:
                threading.Thread(target=self._work, name="plimsoll-requests", daemon=True).start()
        except RuntimeError as error:
            # No thread is to be had, or the interpreter is about to end.
            with self._lock:
                self._working = self._working and not start
            self._answer(asked, Outcome("failed", message=f"no thread to do it with: {error}"))

    def withdraw(self, number: int) -> None:
        """Nobody wants it any more."""
        with self._lock:
            asked = self._open.get(number)
        if asked is not None:
            asked.request._withdrawn.set()
            self._gate.poke()

    def forget(self) -> None:
        """The controller is gone, and nobody waits for an answer."""
        with self._lock:
            every = list(self._open.values())
        for asked in every:
            asked.answered = True
            asked.request._withdrawn.set()
        self._gate.poke()

    def _work(self) -> None:
        while True:
            try:
                asked = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._working = False
                        return
                continue
            try:
                self._carry_out(asked)
            finally:
                asked.cancel()
                with self._lock:
                    self._open.pop(asked.request.id, None)
                    idle = not self._open
                if idle:
                    self._idle()

    def _carry_out(self, asked: _Asked) -> None:
        request = asked.request
        if request.withdrawn or asked.answered:
            return
        asked.doing = f"{request.level} has begun"
        try:
            outcome = self._outcome(asked)
        except Exception as error:
            log.exception("a request could not be carried out")
            outcome = Outcome("failed", message=describe(error))
        self._answer(asked, outcome)
        if self.given_up is not None and (request.withdrawn or outcome.outcome != "done"):
            # The controller holds it for not done, so nobody would ask to take it back.
            self._stranded()

    def _outcome(self, asked: _Asked) -> Outcome:
        request = asked.request
        entries = self._registry.asked(request.level)
        if not entries:
            return Outcome("refused", message=f"nothing is registered for {request.level}")
        if self._stands(request.level):
            # A controller that was restarted asks for what is so. A model that is there must not be loaded a second
            # time.
            entries = [entry for entry in entries if not entry.exclusive]
        if any(entry.exclusive for entry in entries):
            return self._alone(asked, entries)
        return self._perform(asked, entries) if entries else Outcome("done", Freed())

    def _stands(self, level: Level) -> bool:
        """Whether all is as this level wants it, or more than that is given up."""
        if level == "restore":
            return self.given_up is None
        deeper = {"offload": ("offload", "unload"), "unload": ("unload",)}.get(level, ())
        return self._whole and self.given_up in deeper

    def _alone(self, asked: _Asked, entries: Sequence[Registered]) -> Outcome:
        """With nobody inside. The door is open again afterwards if the model can serve."""
        request, gate = asked.request, self._gate
        before = gate.closed
        gate.close(request.level)
        try:
            asked.doing = "requests are still being served"
            if not gate.drained(drain_seconds(request, entries), lambda: request.withdrawn):
                inside = gate.inside
                return Outcome("refused", message=f"{inside} request{'s are' if inside > 1 else ' is'} being served")
            with gate.owned():
                outcome = self._perform(asked, entries)
            before = self._now_closed(request.level, before, outcome, entries)
            return outcome
        finally:
            if before is None:
                gate.open()
            else:
                gate.close(before)

    def _now_closed(
        self, level: Level, before: Optional[str], outcome: Outcome, entries: Sequence[Registered]
    ) -> Optional[str]:
        if level == "restore":
            if outcome.outcome == "done":
                self.given_up = None
                return None
            # What came back in part can't serve.
            return before
        if outcome.outcome not in ("done", "partial"):
            return before
        self.given_up, self._whole = level, outcome.outcome == "done"
        return None if all(entry.serves for entry in entries) else level

    def _perform(self, asked: _Asked, entries: Sequence[Registered]) -> Outcome:
        """Runs the level's callbacks, then those of the levels that it includes; an error of one stops none of them."""
        request = asked.request
        tally = _Tally()
        for entry in entries:
            if not self._one(asked, entry, request, tally):
                tally.failed.append(f"{name_of(entry.callback)} was not begun")
                break
        if tally.succeeded:
            done = {entry.callback for entry in entries}
            for level in LIGHTER[request.level]:
                lighter = [entry for entry in self._registry.asked(level) if entry.callback not in done]
                for entry in lighter:
                    if not self._one(asked, entry, request, tally):
                        break
        return tally.outcome(request)

    def _one(self, asked: _Asked, entry: Registered, request: Request, tally: _Tally) -> bool:
        name = name_of(entry.callback)
        if request.withdrawn or asked.answered:
            return False
        asked.doing = f"{name} has not returned"
        try:
            tally.add(self._invoke(entry, request))
        except Refuse as refusal:
            tally.refused.append(f"{name}: {refusal}")
        except Exception as error:
            log.warning("a callback failed", exc_info=True, extra={"callback": name, "level": request.level})
            tally.failed.append(f"{name}: {describe(error)}")
        return True

    def _late(self, asked: _Asked) -> None:
        # A callback on a loop can be stopped; one on a thread goes on, and what it frees is seen by the meters.
        asked.request._withdrawn.set()
        self._gate.poke()
        self._answer(asked, Outcome("failed", message=f"late: {asked.doing}"))

    def _answer(self, asked: _Asked, outcome: Outcome) -> None:
        with self._lock:
            if asked.answered:
                return
            asked.answered = True
        if asked.request.id >= 0:
            self._acknowledge(asked.request, outcome)


class _Asked:
    """A request that is open."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answered = False
        self.doing = "another request is being carried out"
        self._timer: Optional[threading.Timer] = None

    def watch(self, late: Callable[[_Asked], None]) -> None:
        if self.request.deadline == float("inf"):
            return
        seconds = self.request.remaining
        self._timer = threading.Timer(max(seconds / 2, seconds - EARLY_SECONDS), late, (self,))
        self._timer.name = "plimsoll-deadline"
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _Tally:
    """What the callbacks of one request brought."""

    def __init__(self) -> None:
        self.freed: Optional[Freed] = None
        self.succeeded = 0
        self.failed: list[str] = []
        self.refused: list[str] = []

    def add(self, freed: Optional[Freed]) -> None:
        self.succeeded += 1
        if freed is not None:
            self.freed = freed if self.freed is None else self.freed + freed

    def outcome(self, request: Request) -> Outcome:
        message = "; ".join(self.failed + self.refused) or None
        if self.failed and not self.succeeded:
            return Outcome("failed", self.freed, message)
        if self.refused and not self.succeeded:
            return Outcome("refused", self.freed, message)
        if message is not None:
            return Outcome("partial", self.freed, message)
        return Outcome("done", self.freed)


def drain_seconds(request: Request, entries: Sequence[Registered]) -> float:
    """How long to wait for requests that are being served: what the callbacks need has to be left, half the time at
    most."""
    if request.deadline == float("inf"):
        return 60.0
    takes = sum(entry.takes or 0.0 for entry in entries)
    remaining = request.deadline - time.monotonic()
    return max(remaining / 2, remaining - 2 * takes - EARLY_SECONDS) if takes else remaining / 2


def describe(error: BaseException) -> str:
    """For the controller's log: the kind of an error and its first line."""
    lines = str(error).splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:300]


def name_of(callback: object) -> str:
    """For people."""
    return str(getattr(callback, "__qualname__", None) or type(callback).__qualname__)
