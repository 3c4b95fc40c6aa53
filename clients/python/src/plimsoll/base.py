"""What the client for threads and the one for asyncio have in common: callbacks, the door, recovery from CUDA
errors."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, Optional, TypeVar, Union, overload

from .callbacks import Listener, NoticeKind, Registered, Registry
from .desk import Desk
from .gate import Gate, Inflight, WhenClosed
from .ladder import Step, StepDown
from .link import Backoff, Link, in_helper_process
from .request import Callback, Freed, Level, Outcome, Request, Shutdown
from .wire import Parameters, once, socket_path

log = logging.getLogger("plimsoll")

C = TypeVar("C", bound=Callback)
L = TypeVar("L", bound=Callable[..., object])
Gains = Union[int, Freed, None]

#: A controller that is restarted is back by then. After that, what was given up is taken back without being asked.
ORPHANED_SECONDS = 60.0
#: A child of ``multiprocessing`` knows that it is one a moment after the fork.
FORKED_SECONDS = 0.1

_clients: weakref.WeakSet[Base] = weakref.WeakSet()


class Base:
    """See `plimsoll.Plimsoll` and `plimsoll.aio.Plimsoll`."""

    def __init__(self, socket: Optional[str] = None, *, orphaned_after: float = ORPHANED_SECONDS) -> None:
        """``socket``: as in ``daemon.control``; by default ``PLIMSOLL_CONTROL``, then ``/run/plimsoll/control.sock``;
        ``none`` turns everything off.

        ``orphaned_after``: seconds without a controller after which what was given up is taken back.
        """
        self._path = socket_path(socket)
        self._orphaned_after = orphaned_after
        self._tiers: dict[str, str] = {}
        self._thrash = "healthy"
        self._orphan: Optional[threading.Timer] = None
        self._retries = Backoff(first=max(0.01, orphaned_after))
        self._registry = Registry(self._changed)
        self._link: Optional[Link] = None
        self._gate = Gate(self._counted)
        self._desk = Desk(
            self._registry, self._gate, self._invoke, self._acknowledge, self._watch_orphan, self._changed
        )
        self._notices: queue.SimpleQueue[Optional[tuple[NoticeKind, tuple[Any, ...]]]] = queue.SimpleQueue()
        self._teller: Optional[threading.Thread] = None
        if self._path is not None:
            self._link = Link(
                self._path,
                offer=self._offered,
                deliver=self._deliver,
                lost=self._lost,
                inside=lambda: self._gate.inside,
                # While the model is gone the controller has to know this session, or nobody would restore it.
                busy=lambda: self._desk.busy or self._desk.given_up is not None,
            )
        _clients.add(self)

    # -- callbacks that are asked for memory --

    @overload
    def on_trim(self, callback: C, /) -> C: ...
    @overload
    def on_trim(
        self,
        callback: None = None,
        /,
        *,
        levels: Iterable[Level] = ...,
        gains: Gains = ...,
        takes: Optional[float] = ...,
        priority: int = ...,
        exclusive: bool = ...,
    ) -> Callable[[C], C]: ...
    def on_trim(
        self,
        callback: Optional[C] = None,
        /,
        *,
        levels: Iterable[Level] = ("gc", "aggressive"),
        gains: Gains = None,
        takes: Optional[float] = None,
        priority: int = 0,
        exclusive: bool = False,
    ) -> Any:
        """Drops what refills by itself (``gc``), or everything that costs speed but no state (``aggressive``).

        ``request.level`` says which. It may run while requests are served, unless it is ``exclusive``.
        """
        return self._asking(callback, tuple(levels), gains, takes, priority, exclusive=exclusive)

    @overload
    def on_offload(self, callback: C, /) -> C: ...
    @overload
    def on_offload(
        self,
        callback: None = None,
        /,
        *,
        gains: Gains = ...,
        takes: Optional[float] = ...,
        priority: int = ...,
        serves: bool = ...,
    ) -> Callable[[C], C]: ...
    def on_offload(
        self,
        callback: Optional[C] = None,
        /,
        *,
        gains: Gains = None,
        takes: Optional[float] = None,
        priority: int = 0,
        serves: bool = False,
    ) -> Any:
        """Moves GPU memory to the host. No request is inside meanwhile; afterwards none is let in unless it
        ``serves``."""
        return self._asking(callback, ("offload",), gains, takes, priority, exclusive=True, serves=serves)

    @overload
    def on_unload(self, callback: C, /) -> C: ...
    @overload
    def on_unload(
        self,
        callback: None = None,
        /,
        *,
        gains: Gains = ...,
        takes: Optional[float] = ...,
        priority: int = ...,
        serves: bool = ...,
    ) -> Callable[[C], C]: ...
    def on_unload(
        self,
        callback: Optional[C] = None,
        /,
        *,
        gains: Gains = None,
        takes: Optional[float] = None,
        priority: int = 0,
        serves: bool = False,
    ) -> Any:
        """Drops the model. No request is inside meanwhile; afterwards none is let in unless it ``serves`` by other
        means."""
        return self._asking(callback, ("unload",), gains, takes, priority, exclusive=True, serves=serves)

    @overload
    def on_restore(self, callback: C, /) -> C: ...
    @overload
    def on_restore(
        self, callback: None = None, /, *, takes: Optional[float] = ..., priority: int = ...
    ) -> Callable[[C], C]: ...
    def on_restore(self, callback: Optional[C] = None, /, *, takes: Optional[float] = None, priority: int = 0) -> Any:
        """Takes back what was offloaded or unloaded, and tries it. Requests are let in when all have returned."""
        return self._asking(callback, ("restore",), None, takes, priority, exclusive=True)

    def step_down(
        self,
        steps: Sequence[Union[Step, tuple[Callable[[], object], Callable[[], object]]]],
        *,
        levels: Iterable[Level] = ("aggressive",),
        priority: int = 0,
        exclusive: bool = False,
    ) -> StepDown:
        """Offers smaller settings, tried in the order given until what is wanted has come back; see `StepDown`."""
        ladder = StepDown(steps)
        self._asking(ladder.down, tuple(levels), ladder.gains, None, priority, exclusive=exclusive)
        self._asking(ladder.up, ("restore",), None, None, priority)
        self._telling(ladder.tier, "tier", priority)
        return ladder

    def _asking(
        self,
        callback: Optional[C],
        levels: tuple[Level, ...],
        gains: Gains,
        takes: Optional[float],
        priority: int,
        *,
        exclusive: bool = False,
        serves: bool = False,
    ) -> Any:
        def register(callback: C) -> C:
            self._check(callback)
            freed = Freed.from_answer(gains)
            self._registry.ask(Registered(callback, levels, freed, takes, priority, exclusive, serves))
            return callback

        return register if callback is None else register(callback)

    # -- callbacks that are told something --

    def on_tier(self, callback: L, /, *, priority: int = 0) -> L:
        """``callback(resource, old, new)``: a resource has another tier. First all are told as they are, old = new."""
        return self._telling(callback, "tier", priority)

    def on_thrash(self, callback: L, /, *, priority: int = 0) -> L:
        """``callback(old, new)``: the protected workloads began or ceased to thrash (healthy, thrashing, emergency)."""
        return self._telling(callback, "thrash", priority)

    def on_shutdown(self, callback: Callable[[Shutdown], object], /, *, priority: int = 0) -> Any:
        """``callback(shutdown)``: the controller stops, and guards the machine no more, or this workload will be
        ended."""
        return self._telling(callback, "shutdown", priority)

    def _telling(self, callback: L, kind: NoticeKind, priority: int) -> L:
        self._check(callback)
        self._registry.tell(Listener(callback, kind, priority))
        return callback

    def off(self, callback: Callable[..., Any]) -> bool:
        """Unregisters a callback from everything; whether it was registered."""
        return self._registry.remove(callback)

    # -- requests that are served --

    def inflight(self, when_closed: WhenClosed = "wait", timeout: Optional[float] = None) -> Inflight:
        """Counts a request while it is served: ``with``, ``async with``, or a decorator.

        While the model is offloaded or unloaded the request waits, for ``timeout`` seconds at most, or with
        ``when_closed="raise"`` not at all; then `Unloaded` is raised. Nothing is taken from the model while one is
        inside.
        """
        if not self._gate.used:
            self._gate.used = True
            self._changed()
        return Inflight(self._gate, when_closed, timeout)

    @property
    def given_up(self) -> Optional[Level]:
        """``offload`` or ``unload`` while that is in force, otherwise None."""
        return self._desk.given_up

    @property
    def tiers(self) -> Mapping[str, str]:
        """The tier of each resource as last heard; empty without a controller."""
        return dict(self._tiers)

    @property
    def thrash(self) -> str:
        """Whether the protected thrash, as last heard."""
        return self._thrash

    @property
    def connected(self) -> bool:
        """Whether a controller knows us."""
        return self._link is not None and self._link.session is not None

    # -- life --

    def start(self) -> None:
        """Connects. It happens by itself with the first callback, but in a child of ``multiprocessing``."""
        if self._link is not None:
            self._link.closed = False
            self._link.start()

    def close(self) -> None:
        """Is asked nothing any more. What was given up stays so."""
        if self._orphan is not None:
            self._orphan.cancel()
        if self._link is not None:
            self._link.close()
        if self._teller is not None:
            self._notices.put(None)

    def _changed(self) -> None:
        if self._link is not None and self._ready() and not self._registry.empty():
            self._link.start()

    def _counted(self) -> None:
        if self._link is not None:
            self._link.counted()

    def _offered(self) -> Optional[Parameters]:
        if self._registry.empty():
            return None
        return {"offers": self._registry.offers(), "gated": self._gate.used}

    def _after_fork(self) -> None:
        self._registry.after_fork()
        self._gate.after_fork()
        self._desk.after_fork()
        self._notices = queue.SimpleQueue()
        self._teller = None
        self._orphan = None
        link = self._link
        if link is None:
            return
        link.after_fork()
        if link.closed or self._registry.empty():
            return
        timer = threading.Timer(FORKED_SECONDS, self._begin_in_child)
        timer.daemon = True
        timer.start()

    def _begin_in_child(self) -> None:
        if self._link is not None and self._ready() and not in_helper_process():
            self._link.start()
            if self.given_up is not None:
                self._watch_orphan()

    # -- what the controller says --

    def _deliver(self, notice: Parameters) -> None:
        """On the link's thread: nothing here waits."""
        kind = notice.get("kind")
        if kind == "request":
            request = Request.read(notice["request"])
            if request.level not in ("gc", "aggressive"):
                # It is cared for: the controller says on which level we are to be.
                self._forget_orphan()
            self._desk.arrive(request)
        elif kind == "withdrawn":
            self._desk.withdraw(int(notice["withdrawn"]))
        elif kind == "tier":
            tier = notice["tier"]
            self._tiers[tier["resource"]] = tier["tier"]
            self._tell("tier", tier["resource"], tier["previous"], tier["tier"])
        elif kind == "thrash":
            self._thrash = notice["thrash"]["state"]
            self._tell("thrash", notice["thrash"]["previous"], self._thrash)
        elif kind == "shutdown":
            self._tell("shutdown", Shutdown.read(notice["shutdown"]))

    def _tell(self, kind: NoticeKind, *arguments: Any) -> None:
        """Callbacks have a thread of their own: one that unloads a model must not keep the tiers from being told."""
        self._notices.put((kind, arguments))
        if self._teller is None:
            try:
                teller = threading.Thread(target=self._tell_all, name="plimsoll-notices", daemon=True)
                teller.start()
                self._teller = teller
            except RuntimeError as error:
                log.warning("no thread to tell callbacks with", extra={"error": str(error)})

    def _tell_all(self) -> None:
        while (told := self._notices.get()) is not None:
            kind, arguments = told
            for callback in self._registry.told(kind):
                try:
                    self._notify(callback, arguments)
                except Exception:
                    log.exception("a callback failed", extra={"kind": kind})
        self._teller = None

    def _acknowledge(self, request: Request, outcome: Outcome) -> None:
        session = self._link.session if self._link is not None else None
        if session is None:
            return
        parameters = {
            "request": request.id,
            "session": session,
            "outcome": outcome.outcome,
            "freed": outcome.freed.parameters() if outcome.freed is not None else None,
            "message": outcome.message,
        }
        try:
            once(self._path, "Acknowledge", parameters)
        except Exception as error:
            # It was withdrawn, or its time is over: nobody waits for the answer.
            log.debug("an answer was not wanted", extra={"error": str(error)})

    # -- without a controller --

    def _lost(self) -> None:
        self._tiers.clear()
        self._desk.forget()
        if self._desk.given_up is not None and self._link is not None and not self._link.closed:
            self._watch_orphan()

    def _watch_orphan(self) -> None:
        """Nobody may be left who would have us take back what was given up."""
        self._forget_orphan(cancel_only=True)
        timer = threading.Timer(self._retries.next(600.0), self._restore_unasked)
        timer.name, timer.daemon = "plimsoll-orphan", True
        try:
            timer.start()
            self._orphan = timer
        except RuntimeError as error:
            log.warning("no thread to wait with", extra={"error": str(error)})

    def _forget_orphan(self, *, cancel_only: bool = False) -> None:
        if not cancel_only:
            self._retries.reset()
        orphan, self._orphan = self._orphan, None
        if orphan is not None:
            orphan.cancel()

    def _restore_unasked(self) -> None:
        """Takes back what was given up, if the controller, where there is one, says that there is room now."""
        if self._desk.given_up is None:
            return
        try:
            short = self._desk.busy or (self.connected and not self._calm())
        except Exception:
            log.exception("it is not known whether there is room")
            short = True
        if short:
            self._watch_orphan()
        else:
            self._desk.arrive(Request(-1, "restore", reason="no controller asks for it"))

    def _calm(self) -> bool:
        """The controller does not want it given up, and all is well with every resource."""
        answer = once(self._path, "Self") or {}
        wanted = answer.get("level") in ("offload", "unload")
        return not wanted and all(tier == "normal" for tier in answer.get("tiers", {}).values())

    # -- how callbacks are run --

    def _ready(self) -> bool:
        """Whether callbacks could be run."""
        return True

    def _check(self, callback: Callable[..., Any]) -> None:
        raise NotImplementedError

    def _invoke(self, entry: Registered, request: Request) -> Optional[Freed]:
        raise NotImplementedError

    def _notify(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        raise NotImplementedError


def _close_all() -> None:
    for client in list(_clients):
        if client._link is not None:
            client._link.close(timeout=0.2)


def _fork_all() -> None:
    for client in list(_clients):
        client._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_fork_all)
