"""The client on an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
import unittest
from typing import Any

from cases import ServiceCase
from plimsoll import Request, Unloaded, aio


class Callbacks(ServiceCase):
    def test_coroutines_run_on_the_loop_and_others_on_a_thread(self) -> None:
        ran: dict[str, Any] = {}

        async def serve() -> None:
            client = self.aio()

            @client.on_trim(levels=["gc"])
            async def on_loop(request: Request) -> int:
                ran["loop"] = asyncio.get_running_loop() is loop
                await asyncio.sleep(0.01)
                return 5

            @client.on_trim(levels=["gc"])
            def on_thread(request: Request) -> int:
                ran["thread"] = threading.current_thread() is not threading.main_thread()
                return 7

            loop = asyncio.get_running_loop()
            async with client:
                answer = await aio.in_thread(lambda: self.service.registered() and self.service.asked("gc"))
            self.assertEqual(answer["freed"]["host"], 12)

        asyncio.run(serve())
        self.assertEqual(ran, {"loop": True, "thread": True})

    def test_notices_are_awaited(self) -> None:
        async def serve() -> None:
            client, told = self.aio(), asyncio.Event()

            @client.on_tier
            async def tier(resource: str, old: str, new: str) -> None:
                told.set()

            await aio.in_thread(self.service.registered)
            tiers = {"resource": "host", "tier": "critical", "previous": "normal"}
            self.service.notify(kind="tier", tier=tiers)
            await asyncio.wait_for(told.wait(), 5)

        asyncio.run(serve())

    def test_a_coroutine_that_is_late_is_cancelled(self) -> None:
        async def serve() -> None:
            client, cancelled = self.aio(), asyncio.Event()

            @client.on_trim(levels=["gc"])
            async def slow(request: Request) -> None:
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    cancelled.set()
                    raise

            async with client:
                answer = await aio.in_thread(
                    lambda: self.service.registered() and self.service.asked("gc", seconds=0.5)
                )
                await asyncio.wait_for(cancelled.wait(), 5)
            self.assertRegex(answer["message"], "late: .*slow has not returned")

        asyncio.run(serve())

    def test_a_loop_that_is_blocked_is_answered_for(self) -> None:
        async def serve() -> None:
            client = self.aio()

            @client.on_trim
            async def trim(request: Request) -> None: ...

            async with client:
                await aio.in_thread(self.service.registered)
                number = self.service.request("gc", seconds=0.5)
                time.sleep(0.8)
                self.assertRegex(self.service.answer(number)["message"], "late: .*trim has not returned")

        asyncio.run(serve())

    def test_without_a_loop_nobody_registers(self) -> None:
        client = self.aio()
        client.on_trim(lambda request: 1)

        async def serve() -> None:
            async with client:
                await aio.in_thread(self.service.registered)

        self.assertIsNone(self.service.wait("Register", seconds=0.3))
        asyncio.run(serve())

    def test_a_loop_that_is_gone(self) -> None:
        async def register() -> aio.Plimsoll:
            client = self.aio()

            @client.on_trim
            async def trim(request: Request) -> None: ...

            return client

        asyncio.run(register())
        self.service.registered()
        with self.assertLogs("plimsoll", "WARNING"):
            self.assertIn("no event loop runs", self.service.asked("gc")["message"])


class Requests(ServiceCase):
    def test_they_wait_without_blocking_and_can_be_cancelled(self) -> None:
        async def serve() -> None:
            client = self.aio()
            client._gate.close("unload")
            entered = []

            async def request() -> None:
                async with client.inflight():
                    entered.append(1)

            waiting = [asyncio.ensure_future(request()) for _ in range(100)]
            await asyncio.sleep(0.05)
            for cancelled in waiting[:50]:
                cancelled.cancel()
            with self.assertRaises(Unloaded):
                async with client.inflight(timeout=0.05):
                    pass
            with self.assertRaises(Unloaded):
                async with client.inflight("raise"):
                    pass
            self.assertEqual((entered, client._gate.inside), ([], 0))
            await aio.in_thread(client._gate.open)
            await asyncio.gather(*waiting, return_exceptions=True)
            self.assertEqual((len(entered), client._gate.inside, client._gate._waiters), (50, 0, set()))

        asyncio.run(serve())

    def test_a_task_that_is_cancelled_inside_comes_out(self) -> None:
        async def serve() -> None:
            client = self.aio()

            @client.inflight()
            async def request() -> None:
                await asyncio.sleep(30)

            task = asyncio.ensure_future(request())
            await asyncio.sleep(0.01)
            self.assertEqual(client._gate.inside, 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.assertEqual(client._gate.inside, 0)

        asyncio.run(serve())

    def test_an_unload_waits_for_tasks(self) -> None:
        async def serve() -> None:
            client, order = self.aio(), []

            @client.on_unload
            async def unload(request: Request) -> None:
                order.append("unload")

            async with client, client.inflight():
                await aio.in_thread(lambda: self.service.offered(lambda o: o["gated"]))
                number = self.service.request("unload")
                await asyncio.sleep(0.1)
                order.append("request")
            # The client was closed first; what had begun is carried out all the same.
            await asyncio.sleep(0.1)
            self.assertEqual(order[0], "request")
            self.assertTrue(number)

        asyncio.run(serve())


if __name__ == "__main__":
    unittest.main()
