"""The connection by which a program is asked: registers, listens, comes back when it breaks, reports what is served."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import socket
import sys
import threading
import time
from typing import Any, Callable, Optional

from .errors import ControlError
from .wire import Connection, Garbled, Parameters

log = logging.getLogger("plimsoll")

#: A controller may wait some seconds until it knows the caller's cgroup as a workload.
REGISTER_SECONDS = 30.0
#: What is registered at start-up comes in bursts: one registration for all of them.
SETTLE_SECONDS = 0.05
#: Between two reports of requests that are being served.
REPORT_SECONDS = 0.25
#: A connection that lasted so long was a good one: the next is tried at once.
STEADY_SECONDS = 5.0
#: Nobody is there: the next look costs two system calls.
ABSENT_SECONDS = 5.0
#: Somebody is there and won't have us.
REFUSED_SECONDS = 60.0


class Backoff:
    """Waits that grow, each by a chance of its own, or all clients of a machine would come back at once."""

    def __init__(self, first: float = 0.1, chance: Callable[[], float] = random.random) -> None:
        self._first = first
        self._chance = chance
        self._times = 0

    def reset(self) -> None:
        """It went well."""
        self._times = 0

    def next(self, most: float) -> float:
        """Seconds to wait: doubled each time up to ``most``, and between half and the whole of that."""
        ceiling: float = min(most, self._first * 2**self._times)
        self._times = min(self._times + 1, 30)
        return ceiling * (0.5 + self._chance() / 2)


class Bell:
    """Wakes a thread that waits in select."""

    def __init__(self) -> None:
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)

    def fileno(self) -> int:
        """For select."""
        return self._heard.fileno()

    def ring(self) -> None:
        """Never waits: a bell that can't be rung any more has been rung often enough."""
        with contextlib.suppress(OSError):
            self._rung.send(b".")

    def heard(self, seconds: Optional[float]) -> None:
        """Waits for it, so long at most."""
        if select.select([self], [], [], seconds)[0]:
            self.answer()

    def answer(self) -> None:
        """It is heard."""
        with contextlib.suppress(OSError):
            while self._heard.recv(4096):
                pass

    def close(self) -> None:
        """Nobody listens any more."""
        self._heard.close()
        self._rung.close()


class Link:
    """A daemon thread that lives as long as somebody is to be told or asked."""

    def __init__(
        self,
        path: str,
        offer: Callable[[], Optional[Parameters]],
        deliver: Callable[[Parameters], None],
        lost: Callable[[], None],
        inside: Callable[[], int],
        busy: Callable[[], bool],
    ) -> None:
        """``offer`` gives the parameters of Register, None where nobody is to be told or asked; ``deliver`` takes
        notices."""
        self._path = path
        self._offer = offer
        self._deliver = deliver
        self._lost = lost
        self._inside = inside
        self._busy = busy
        self.closed = False
        self.after_fork()

    def after_fork(self) -> None:
        """The thread is not here, and the connection is the parent's: only our copy of it is closed."""
        for ours in ("_bell", "_connection"):
            with contextlib.suppress(OSError, AttributeError):
                getattr(self, ours).close()
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._bell: Optional[Bell] = None
        self._connection: Optional[Connection] = None
        self._dirty = False
        #: Number that the controller gave us, None while we aren't registered.
        self.session: Optional[int] = None
        self.workload: Optional[str] = None

    def start(self) -> None:
        """Starts the thread, or has a running one look whether what is offered changed."""
        with self._lock:
            if self.closed:
                return
            if self._thread is None:
                self._begin()
        self._wake()

    def _begin(self) -> None:
        bell = Bell()
        thread = threading.Thread(target=self._run, args=(bell,), name="plimsoll-link", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("no thread to listen to the controller with", extra={"error": str(error)})
            bell.close()
            return
        self._thread, self._bell = thread, bell

    def close(self, timeout: float = 1.0) -> None:
        """Ends the thread. Whoever calls this on the thread itself, or at the interpreter's end, waits for nothing."""
        with self._lock:
            self.closed = True
            thread = self._thread
        self._wake()
        if thread is not None and thread is not threading.current_thread() and not sys.is_finalizing():
            thread.join(timeout)

    def counted(self) -> None:
        """The number of requests that are being served changed. Called for each of them: one flag, almost always."""
        if not self._dirty:
            self._dirty = True
            self._wake()

    def _wake(self) -> None:
        bell = self._bell
        if bell is not None:
            bell.ring()

    def _run(self, bell: Bell) -> None:
        try:
            self._keep_connected(bell)
        finally:
            with self._lock:
                if self._bell is bell:
                    self._thread = self._bell = None
            bell.close()

    def _keep_connected(self, bell: Bell) -> None:
        backoff = Backoff()
        self._wait(bell, SETTLE_SECONDS)
        while not self.closed:
            most = ABSENT_SECONDS
            try:
                offered = self._offer()
                if offered is None:
                    bell.heard(None)
                    continue
                self._serve(offered, backoff, bell)
                continue
            except ControlError as error:
                most = REFUSED_SECONDS
                log.info("the controller refused us", extra={"error": str(error)})
            except (OSError, Garbled) as error:
                log.debug("no controller", extra={"path": self._path, "error": str(error)})
            except Exception:
                most = REFUSED_SECONDS
                log.exception("the connection to the controller failed")
            self._wait(bell, backoff.next(most))

    def _wait(self, bell: Bell, seconds: float) -> None:
        """Waits so long, whoever wakes us meanwhile."""
        end = time.monotonic() + seconds
        while not self.closed and (left := end - time.monotonic()) > 0:
            bell.heard(left)

    def _serve(self, offered: Parameters, backoff: Backoff, bell: Bell) -> None:
        """Registers and listens, until the connection breaks or something else is offered."""
        with Connection(self._path) as connection:
            self._connection = connection
            registered = connection.call("Register", offered, wait=REGISTER_SECONDS)
            self.workload = str(registered.get("workload", ""))
            self.session = int(registered["session"])
            since = time.monotonic()
            try:
                connection.send("Subscribe", {}, more=True)
                self._listen(connection, offered, bell)
            finally:
                if time.monotonic() - since > STEADY_SECONDS:
                    backoff.reset()
                self.session = None
                self._connection = None
                self._lost()

    def _listen(self, connection: Connection, offered: Parameters, bell: Bell) -> None:
        reported: Optional[int] = None
        next_report = 0.0
        self._take(connection.waiting())
        while not self.closed:
            now = time.monotonic()
            if offered["gated"] and now >= next_report and (self._inside() != reported or self._dirty):
                self._dirty = False
                reported, next_report = self._report(), now + REPORT_SECONDS
            pause = max(0.0, next_report - now) if self._dirty and offered["gated"] else None
            watched: list[Any] = [connection, bell]
            readable = select.select(watched, [], [], pause)[0]
            if bell in readable:
                bell.answer()
                if self._offer() != offered and not self._busy():
                    # A stream answers no further call: what is offered now is said on a new connection.
                    self._wait(bell, SETTLE_SECONDS)
                    return
            if connection in readable:
                self._take(connection.arrived())

    def _take(self, notices: list[Parameters]) -> None:
        for reply in notices:
            notice = reply.get("notice")
            if isinstance(notice, dict):
                self._deliver(notice)

    def _report(self) -> int:
        """Says how many requests are being served. Not waited for: the next report corrects it."""
        inside = self._inside()
        with contextlib.suppress(OSError), Connection(self._path, patience=1.0) as connection:
            connection.send("Inflight", {"session": self.session, "requests": inside}, oneway=True)
        return inside


def in_helper_process() -> bool:
    """Whether this process was forked by ``multiprocessing``: a worker of a data loader, most likely, and no server."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent: Any = getattr(multiprocessing, "parent_process", lambda: None)()
    return parent is not None and os.getppid() == parent.pid
