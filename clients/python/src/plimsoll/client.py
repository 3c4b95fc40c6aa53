"""The client for programs with threads."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from .base import Base
from .callbacks import Registered
from .cuda import CudaGuard
from .request import Freed, Request
from .reservation import Asking, Headroom, Reservation, Smaller, asked, commit_inherited, headroom, options


class Plimsoll(Base):
    """A program that can be asked to give memory back.

    Callbacks run on threads of their own, requests one at a time. Without a controller none is ever called,
    reservations are granted at once and say so (``controlled`` is False), and there is no headroom to be told.
    """

    def __enter__(self) -> Plimsoll:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reserve(
        self,
        size: int,
        *,
        gpus: Optional[Mapping[str, int]] = None,
        degrade: Sequence[Smaller] = (),
        value: Any = None,
        wait: float = 0.0,
        ttl: Optional[float] = None,
    ) -> Reservation:
        """Reserves ``size`` bytes of host memory and ``gpus`` bytes by GPU id before a model is loaded; raises NoRoom.

        ``degrade``: smaller ways to load it, tried in their order; the reservation's ``value`` says which it is.
        ``wait``: seconds to wait for room. ``ttl``: seconds that it lasts when this process hangs. To be used with
        ``with``: it is committed at the end, or released where the load fails.
        """
        return Asking(self._path, options(size, gpus, degrade, value), wait, ttl).run()

    def headroom(self) -> Optional[Headroom]:
        """What there is; None without a controller."""
        return headroom(self._path)

    def commit_inherited(self, measured: int) -> bool:
        """Commits what ``plimsoll exec --needs`` reserved for this program; whether there was anything to commit."""
        return commit_inherited(self._path, measured)

    def status(self) -> Optional[dict[str, Any]]:
        """How it stands with this workload, as the interface's ``Self``; None without a controller."""
        return asked(self._path, "Self")

    def cuda_guard(self, **settings: Any) -> CudaGuard:
        """Recovers from CUDA errors; see `CudaGuard` for the settings."""
        return CudaGuard(self, **settings)

    def _check(self, callback: Callable[..., Any]) -> None:
        if inspect.iscoroutinefunction(callback):
            raise TypeError("coroutine functions need plimsoll.aio.Plimsoll")

    def _invoke(self, entry: Registered, request: Request) -> Optional[Freed]:
        return Freed.from_answer(entry.callback(request))

    def _notify(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        callback(*arguments)
