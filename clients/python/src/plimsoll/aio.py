"""The client for programs with an event loop.

What is asked arrives on a thread, not on the loop: one that a model blocks can't answer, and the controller is told
so in time. Coroutine functions run on the loop, other callbacks on a thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import threading
from collections.abc import Awaitable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, cast

from .base import Base
from .callbacks import Registered
from .cuda import CudaGuard
from .request import Freed, Request
from .reservation import Asking, Headroom, Reservation, Smaller, asked, commit_inherited, headroom, options

T = TypeVar("T")
#: How often it is looked whether a coroutine's request was withdrawn.
LOOK_SECONDS = 0.05


class Plimsoll(Base):
    """The asyncio twin of `plimsoll.Plimsoll`: callbacks may be coroutine functions, and what waits is awaited.

    It connects with ``async with``, or with the first callback that is registered while the loop runs.
    """

    _loop: Optional[asyncio.AbstractEventLoop] = None

    async def __aenter__(self) -> Plimsoll:
        self._loop = asyncio.get_running_loop()
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Not here: closing waits for a thread, which may wait for this loop.
        await in_thread(self.close)

    def reserve(
        self,
        size: int,
        *,
        gpus: Optional[Mapping[str, int]] = None,
        degrade: Sequence[Smaller] = (),
        value: Any = None,
        wait: float = 0.0,
        ttl: Optional[float] = None,
    ) -> Reserving:
        """As `plimsoll.Plimsoll.reserve`, to be awaited or used with ``async with``. Who is cancelled holds nothing."""
        return Reserving(Asking(self._path, options(size, gpus, degrade, value), wait, ttl))

    async def headroom(self) -> Optional[Headroom]:
        """What there is; None without a controller."""
        return await in_thread(functools.partial(headroom, self._path))

    async def commit_inherited(self, measured: int) -> bool:
        """Commits what ``plimsoll exec --needs`` reserved for this program; whether there was anything to commit."""
        return await in_thread(functools.partial(commit_inherited, self._path, measured))

    async def status(self) -> Optional[dict[str, Any]]:
        """How it stands with this workload, as the interface's ``Self``; None without a controller."""
        return await in_thread(lambda: asked(self._path, "Self"))

    def cuda_guard(self, **settings: Any) -> CudaGuard:
        """Recovers from CUDA errors; see `CudaGuard` for the settings."""
        return CudaGuard(self, **settings)

    def _ready(self) -> bool:
        # A process that only loads the program, such as gunicorn's with --preload, runs no loop and can be asked
        # nothing.
        return self._loop is not None

    def _after_fork(self) -> None:
        self._loop = None
        super()._after_fork()

    def _check(self, callback: Callable[..., Any]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def _invoke(self, entry: Registered, request: Request) -> Optional[Freed]:
        if not _is_async(entry.callback):
            return Freed.from_answer(entry.callback(request))
        call = functools.partial(cast(Callable[[Request], Awaitable[object]], entry.callback), request)
        return Freed.from_answer(self._on_loop(call, lambda: request.withdrawn))

    def _notify(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if not _is_async(callback):
            callback(*arguments)
            return
        call = functools.partial(cast(Callable[..., Awaitable[object]], callback), *arguments)
        self._on_loop(call, lambda: self._loop is None or self._loop.is_closed())

    def _on_loop(self, call: Callable[[], Awaitable[object]], enough: Callable[[], bool]) -> object:
        """Runs a coroutine to its end, and cancels it when it is enough."""
        loop = self._loop
        if loop is None or loop.is_closed():
            raise RuntimeError("no event loop runs: use `async with` on the client, or register on the loop")

        async def run() -> object:
            return await call()

        future = asyncio.run_coroutine_threadsafe(run(), loop)
        while True:
            try:
                return future.result(LOOK_SECONDS)
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise
                if enough() or loop.is_closed():
                    future.cancel()
                    raise RuntimeError("cancelled: its time is over, or nobody wants it any more") from None
            except concurrent.futures.CancelledError:
                raise RuntimeError("cancelled by the event loop") from None


class Reserving:
    """A reservation that is being asked for."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._got: Optional[Reservation] = None

    def __await__(self) -> Generator[Any, None, Reservation]:
        return in_thread(self._asking.run, self._asking.give_up).__await__()

    async def __aenter__(self) -> Reservation:
        self._got = await self
        return self._got

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        got = self._got
        if got is not None:
            await asyncio.shield(in_thread(lambda: got.__exit__(kind, error, traceback)))


async def in_thread(function: Callable[[], T], give_up: Callable[[], None] = lambda: None) -> T:
    """Runs a function on a thread of its own.

    The default executor has few threads and the interpreter waits for them at its end; who waits an hour for room must
    not occupy one.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: Optional[T], error: Optional[BaseException]) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result: Optional[T] = None
        failure: Optional[BaseException] = None
        try:
            result = function()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name="plimsoll-call", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        give_up()
        raise


def _is_async(callback: object) -> bool:
    """Objects with an ``async def __call__`` count too."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)
