"""The door of a model: requests go in while it is there, and it is not taken away while they are in.

This is the lock that inference and ``.to("cpu")`` share. Requests hold it together, whoever moves the model holds it
alone: a release first lets nobody in, then waits until everybody is out.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Literal, Optional, TypeVar, cast

from .errors import Unloaded

F = TypeVar("F", bound=Callable[..., Any])
#: What a request does at a closed door: it waits, or raises Unloaded.
WhenClosed = Literal["wait", "raise"]


class Gate:
    """Counts requests, and holds them off. All methods are safe in threads and on event loops."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._condition = threading.Condition(threading.Lock())
        self._inside = 0
        self._closed: Optional[str] = None
        self._waiters: set[_Waiter] = set()
        self.retry_after = 10.0
        #: Whether anybody goes through it: then requests are held off while the model is gone.
        self.used = False

    def after_fork(self) -> None:
        """Requests are served by the parent; another thread may have held the lock."""
        self._condition = threading.Condition(threading.Lock())
        self._inside = 0
        self._waiters = set()

    @property
    def inside(self) -> int:
        """Requests that are being served."""
        return self._inside

    @property
    def closed(self) -> Optional[str]:
        """The level that keeps it closed, None where it is open."""
        return self._closed

    def close(self, why: str) -> None:
        """Lets nobody in from now on."""
        with self._condition:
            self._closed = why

    def open(self) -> None:
        """Lets everybody in who waits."""
        with self._condition:
            self._closed = None
            self._condition.notify_all()
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.wake()

    def drained(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Waits until nobody is inside; False where somebody still is after so long, or when it is ``enough``."""
        with self._condition:
            self._condition.wait_for(lambda: self._inside == 0 or enough(), max(0.0, seconds))
            return self._inside == 0

    def poke(self) -> None:
        """Has whoever waits look again whether it is enough."""
        with self._condition:
            self._condition.notify_all()

    def try_enter(self) -> bool:
        """Goes in if it is open."""
        with self._condition:
            if self._closed is not None:
                return False
            self._inside += 1
        self._changed()
        return True

    def join(self) -> None:
        """Goes in behind somebody who is inside and waits for this one: at a closed door both would wait for ever."""
        with self._condition:
            self._inside += 1
        self._changed()

    def enter(self, timeout: Optional[float]) -> None:
        """Waits until it is open, and goes in; raises Unloaded where that takes longer than ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.try_enter():
            with self._condition:
                left = None if end is None else end - time.monotonic()
                opened = self._condition.wait_for(lambda: self._closed is None, left)
            if not opened:
                raise self.unloaded()

    async def enter_async(self, timeout: Optional[float]) -> None:
        """The same without blocking the event loop. Who is cancelled while he waits has not gone in."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while not self.try_enter():
            waiter = _Waiter(loop)
            with self._condition:
                if self._closed is None:
                    continue
                self._waiters.add(waiter)
            left = None if end is None else end - loop.time()
            try:
                await asyncio.wait_for(waiter.future, left)
            except asyncio.TimeoutError:
                raise self.unloaded() from None
            finally:
                with self._condition:
                    self._waiters.discard(waiter)

    def leave(self) -> None:
        """Comes out."""
        with self._condition:
            # A request that began before a fork ends in both processes, and was counted in one.
            self._inside = max(0, self._inside - 1)
            if self._inside == 0:
                self._condition.notify_all()
        self._changed()

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """For whoever moves the model: a smoke test may go through the door that is closed to others."""
        owner = Inflight(self)
        owner.active = True
        token = _current.set(owner)
        try:
            yield
        finally:
            owner.active = False
            _current.reset(token)

    def unloaded(self) -> Unloaded:
        """What is raised at the closed door."""
        return Unloaded(self._closed or "restored", self.retry_after)


class _Waiter:
    """A task that waits at the door."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._done)
        except RuntimeError:
            # Its loop is closed: nobody waits any more.
            return

    def _done(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


#: The request that the running thread or task is inside of, and the gate it went through.
_current: contextvars.ContextVar[Optional[Inflight]] = contextvars.ContextVar("plimsoll_inflight", default=None)


class Inflight:
    """One request that is being served: a context manager for threads and for tasks, and a decorator."""

    __slots__ = ("_gate", "_outer", "_timeout", "_when_closed", "active")

    def __init__(self, gate: Gate, when_closed: WhenClosed = "wait", timeout: Optional[float] = None) -> None:
        self._gate = gate
        self._when_closed = when_closed
        self._timeout = timeout
        self._outer: Optional[Inflight] = None
        self.active = False

    def _within(self) -> bool:
        """Whether this is part of a request that is inside already."""
        outer = _current.get()
        while outer is not None and not outer.active:
            outer = outer._outer
        self._outer = outer
        while outer is not None:
            if outer._gate is self._gate:
                return True
            outer = outer._outer
        return False

    def _timeout_now(self) -> Optional[float]:
        return 0.0 if self._when_closed == "raise" else self._timeout

    def __enter__(self) -> Inflight:
        if self._within():
            self._gate.join()
        elif not self._gate.try_enter():
            self._gate.enter(self._timeout_now())
        self.active = True
        _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.active = False
        # Not by token: a generator may be closed in another context than the one that it was begun in.
        _current.set(self._outer)
        self._gate.leave()

    async def __aenter__(self) -> Inflight:
        if self._within():
            self._gate.join()
        elif not self._gate.try_enter():
            await self._gate.enter_async(self._timeout_now())
        self.active = True
        _current.set(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def __call__(self, function: F) -> F:
        """Counts each call of a function, coroutine function or async generator function."""
        gate, when_closed, timeout = self._gate, self._when_closed, self._timeout

        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def stream(*args: Any, **kwargs: Any) -> Any:
                async with Inflight(gate, when_closed, timeout):
                    async for item in function(*args, **kwargs):
                        yield item

            return cast(F, stream)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def task(*args: Any, **kwargs: Any) -> Any:
                async with Inflight(gate, when_closed, timeout):
                    return await function(*args, **kwargs)

            return cast(F, task)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generate(*args: Any, **kwargs: Any) -> Any:
                with Inflight(gate, when_closed, timeout):
                    yield from function(*args, **kwargs)

            return cast(F, generate)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with Inflight(gate, when_closed, timeout):
                return function(*args, **kwargs)

        return cast(F, call)
