"""A test case with a controller and clients that are closed at its end."""

from __future__ import annotations

import threading
import time
import unittest
from typing import Any, Callable

import plimsoll
import plimsoll.aio
from service import Service


class ServiceCase(unittest.TestCase):
    """Each test has a controller of its own."""

    def setUp(self) -> None:
        self.service = Service()
        self.addCleanup(self.service.close)

    def client(self, **settings: Any) -> plimsoll.Plimsoll:
        """A client of that controller."""
        client = plimsoll.Plimsoll(self.service.path, **settings)
        self.addCleanup(client.close)
        return client

    def aio(self, **settings: Any) -> plimsoll.aio.Plimsoll:
        """One for asyncio."""
        client = plimsoll.aio.Plimsoll(self.service.path, **settings)
        self.addCleanup(client.close)
        return client

    def until(self, true: Callable[[], object], seconds: float = 5.0) -> None:
        """Waits until something is so."""
        end = time.monotonic() + seconds
        while not true():
            self.assertLess(time.monotonic(), end, "it never came to be")
            time.sleep(0.005)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    """Starts a thread that a failed test does not leave the process waiting for."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread
