"""Room for a model before it is loaded: reserved, kept by heartbeats while it loads, committed when it is there."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from .errors import ControlError, NoRoom
from .meters import host_bytes
from .wire import Connection, Garbled, Parameters, once

log = logging.getLogger("plimsoll")

#: With GPUs that differ from option to option each is asked for on its own, so often while there is no room.
ASK_AGAIN_SECONDS = 1.0
#: A controller that hung up is awaited so long.
RESTART_SECONDS = 5.0
#: Errors that say that the controller has nothing to do with this process.
UNKNOWN_TO_IT = ("PermissionDenied", "NotAWorkload", "MethodNotFound", "InterfaceNotFound")


@dataclass(frozen=True)
class Option:
    """One way to load a model: bytes of host memory, bytes by GPU id (``any``: whichever has most room), and
    ``value``, which says what it is."""

    bytes: int
    value: Any = None
    gpus: Mapping[str, int] = field(default_factory=dict)


#: A smaller way to load a model: Option, or bytes of host memory with a value.
Smaller = Union[Option, tuple[int, Any]]


@dataclass(frozen=True)
class GpuRoom:
    """What there is on a GPU, in bytes."""

    tier: str
    available: Optional[int]
    reserved: int
    admissible: int


@dataclass(frozen=True)
class Headroom:
    """What there is, in bytes. ``available`` is None where it could not be read, ``margin`` where nothing is
    granted."""

    tier: str
    available: Optional[int]
    reserved: int
    margin: Optional[int]
    admissible: int
    gpus: Mapping[str, GpuRoom]

    @staticmethod
    def read(given: Parameters) -> Headroom:
        """From the controller's answer."""
        gpus = {name: GpuRoom(**_only(gpu, GpuRoom)) for name, gpu in (given.get("gpus") or {}).items()}
        return Headroom(**{**_only(given, Headroom), "gpus": gpus})


def _only(given: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The fields of a dataclass; what the interface may have gained since is left out."""
    return {name: given.get(name) for name in kind.__dataclass_fields__}


def headroom(path: Optional[str]) -> Optional[Headroom]:
    """What there is; None without a controller."""
    answer = asked(path, "Headroom")
    return Headroom.read(answer) if answer is not None else None


def asked(path: Optional[str], method: str) -> Optional[Parameters]:
    """A question that any controller can answer; None without one, or where it knows nothing to say to us."""
    try:
        return once(path, method)
    except ControlError as error:
        log.debug("the controller has no answer", extra={"error": str(error)})
        return None


class Reservation:
    """Room that was granted. ``option`` is the one that was chosen, ``controlled`` says whether anybody promised it.

    Without a controller everything is granted at once, the most wanted option, and nothing is promised.
    """

    def __init__(
        self, option: Option, connection: Optional[Connection] = None, granted: Optional[Parameters] = None
    ) -> None:
        self.option = option
        self.controlled = connection is not None
        #: The controller was restarted while the model was loading: the promise is gone, and could not be renewed.
        self.lost = False
        granted = granted or {}
        self.id: Optional[int] = granted.get("id")
        self.gpus: Mapping[str, int] = granted.get("gpus") or option.gpus
        self._ttl = float(granted.get("ttlSeconds", 60))
        self._size = option.bytes
        self._connection = connection
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._before = host_bytes()
        self._pid = os.getpid()
        if connection is not None:
            threading.Thread(target=self._beat, name="plimsoll-heartbeat", daemon=True).start()

    @property
    def bytes(self) -> int:
        """Bytes of host memory that were granted."""
        return self._size

    @property
    def value(self) -> Any:
        """The value of the chosen option."""
        return self.option.value

    def grown(self) -> int:
        """Bytes of host memory that this process got since it was granted."""
        now = host_bytes()
        return 0 if now is None or self._before is None else max(0, now - self._before)

    def amend(self, size: int) -> None:
        """Another size, in all. Raises NoRoom where it is more and does not fit; then the old one stays."""
        answer = self._say("Amend", size=size)
        if answer is not None or not self.controlled:
            self._size = size

    def commit(self, measured: Optional[int] = None) -> None:
        """The model is loaded and took so much (by default what this process has grown by). Ends the reservation."""
        self._end("Commit", measured=self.grown() if measured is None else measured)

    def release(self) -> None:
        """What was not used is no longer wanted. Ends the reservation."""
        self._end("Release")

    def abandon(self) -> None:
        """Gives it back without a word: the controller sees the connection go. Never waits."""
        self._done.set()
        if self._connection is not None:
            self._connection.abort()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *_: object) -> None:
        """Commits, or releases where the load failed; one that failed for lack of memory is told to the controller."""
        if self._done.is_set():
            return
        if kind is None:
            self.commit()
            return
        if issubclass(kind, MemoryError):
            with contextlib.suppress(Exception):
                self._say("ReportOom", about=False)
        self.release()

    def _end(self, method: str, **parameters: Any) -> None:
        if self._done.is_set():
            return
        self._done.set()
        # A load that went well must not fail because the controller forgot about it.
        with contextlib.suppress(ControlError):
            self._say(method, **parameters)
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _say(self, method: str, about: bool = True, **parameters: Any) -> Optional[Parameters]:
        """A call about this reservation; None where the controller is gone, or this process is a fork of the one that
        reserved."""
        if self._pid != os.getpid():
            return None
        with self._lock:
            if self._connection is None:
                return None
            try:
                return self._connection.call(method, {**({"id": self.id} if about else {}), **parameters})
            except (OSError, Garbled) as error:
                self._drop(error)
            except ControlError as error:
                if error.name.endswith(".NoSuchReservation"):
                    self.lost = True
                    return None
                raise no_room(error, None) from None
        return None

    def _drop(self, error: Exception) -> None:
        log.info("the controller is gone, and the reservation with it", extra={"error": str(error)})
        self.lost = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _beat(self) -> None:
        while not self._done.wait(max(0.05, self._ttl / 3)):
            with contextlib.suppress(Exception):
                self._say("Heartbeat")
            if self.lost or self._connection is None:
                return


class Asking:
    """A request for room that can be given up from another thread."""

    def __init__(self, path: Optional[str], options: Sequence[Option], wait: float, ttl: Optional[float]) -> None:
        self._path = path
        self._options = options
        self._wait = wait
        self._ttl = math.ceil(ttl) if ttl is not None else None
        self._lock = threading.Lock()
        self._connection: Optional[Connection] = None
        self._begun = time.monotonic()
        self._reservation: Optional[Reservation] = None
        self._met = self._hung_up = False
        self._given_up = False
        self._stop = threading.Event()

    def give_up(self) -> None:
        """Whoever waits in `run` comes back, and what was granted in this moment is given back."""
        with self._lock:
            self._given_up = True
            self._stop.set()
            if self._connection is not None:
                self._connection.abort()
            if self._reservation is not None:
                self._reservation.abandon()

    def run(self) -> Reservation:
        """Asks; raises NoRoom. Nobody is asked where there is nobody, or where he does not know us."""
        end = self._begun + RESTART_SECONDS
        while self._path is not None and not self._given_up:
            try:
                return self._asked(self._path)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if not self._met or time.monotonic() >= end:
                    log.debug("no controller to reserve at", extra={"error": str(error)})
                    break
            except (OSError, Garbled) as error:
                # It went away in the middle, and is most likely being restarted.
                log.debug("the controller hung up", extra={"error": str(error)})
                end = max(end, time.monotonic() + RESTART_SECONDS) if not self._hung_up else end
                self._hung_up = True
                if time.monotonic() >= end:
                    break
            except ControlError as error:
                if error.name.rpartition(".")[2] not in UNKNOWN_TO_IT:
                    raise
                log.info("the controller does not know us, nothing is reserved", extra={"error": str(error)})
                break
            except NoRoom as error:
                if error.reason == "stranger":
                    log.info("this process is in no workload, nothing is reserved")
                    break
                if error.reason != "stopping" or time.monotonic() >= end:
                    raise
            self._stop.wait(0.2)
        return Reservation(self._options[0])

    def _asked(self, path: str) -> Reservation:
        connection = Connection(path)
        with self._lock:
            self._met = True
            self._connection = connection
            if self._given_up:
                connection.abort()
        try:
            option, granted = self._granted(connection)
            with self._lock:
                self._reservation = Reservation(option, connection, granted)
                if self._given_up:
                    self._reservation.abandon()
                return self._reservation
        except BaseException:
            connection.close()
            raise

    def _granted(self, connection: Connection) -> tuple[Option, Parameters]:
        """The controller tries several sizes itself, with the same GPUs; what differs in its GPUs is asked for one by
        one."""
        groups = grouped(self._options)
        end = self._begun + self._wait
        if len(groups) == 1:
            return self._ask(connection, groups[0], max(0.0, end - time.monotonic()))
        while True:
            refusal: Optional[NoRoom] = None
            for group in groups:
                try:
                    return self._ask(connection, group, 0.0)
                except NoRoom as error:
                    refusal = error
            left = end - time.monotonic()
            if left <= 0 or (refusal is not None and refusal.retry_after is None):
                raise refusal or AssertionError("there is at least one option")
            self._stop.wait(min(left, ASK_AGAIN_SECONDS))

    def _ask(self, connection: Connection, group: Sequence[Option], wait: float) -> tuple[Option, Parameters]:
        parameters = {
            "sizes": [max(1, option.bytes) for option in group],
            "gpus": dict(group[0].gpus) or None,
            "waitSeconds": math.ceil(wait) or None,
            "ttlSeconds": self._ttl,
        }
        try:
            granted = connection.call("Reserve", parameters, wait=math.ceil(wait))
        except ControlError as error:
            raise no_room(error, connection) from None
        size = granted["size"]
        return next((option for option in group if max(1, option.bytes) == size), group[0]), granted


def options(size: int, gpus: Optional[Mapping[str, int]], degrade: Sequence[Smaller], value: Any) -> list[Option]:
    """The most wanted one, then the others in their order. One given as bytes and value needs the same GPUs."""
    gpus = dict(gpus or {})
    first = Option(size, value, gpus)
    others = [other if isinstance(other, Option) else Option(other[0], other[1], gpus) for other in degrade]
    return [first, *others]


def grouped(options: Sequence[Option]) -> list[list[Option]]:
    """Neighbours that need the same GPUs."""
    groups: list[list[Option]] = []
    for option in options:
        if groups and dict(groups[-1][0].gpus) == dict(option.gpus):
            groups[-1].append(option)
        else:
            groups.append([option])
    return groups


def no_room(error: ControlError, connection: Optional[Connection]) -> Exception:
    """A refusal in this package's words; other errors stay what they are."""
    if not error.name.endswith(".Refused"):
        return error
    given = error.parameters
    retry = given.get("retrySeconds")
    admissible = max(0, int(given.get("available", 0)) - int(given.get("margin", 0)))
    if connection is not None:
        with contextlib.suppress(Exception):
            admissible = int(connection.call("Headroom")["admissible"])
    return NoRoom(
        str(given.get("message", error)),
        reason=str(given.get("reason", "")),
        retry_after=None if retry is None else float(retry),
        admissible=admissible,
        tier=str(given.get("tier", "")),
    )


def commit_inherited(path: Optional[str], measured: int) -> bool:
    """Commits what ``plimsoll exec --needs`` reserved for this program; whether there was anything to commit."""
    with contextlib.suppress(KeyError, ValueError, ControlError):
        number = int(os.environ["PLIMSOLL_RESERVATION"])
        return once(path, "Commit", {"id": number, "measured": measured}) is not None
    return False
