"""Requests that are served: counted, never cut in two, held off while the model is gone."""

from __future__ import annotations

import asyncio
import threading
import time
import unittest
from collections.abc import AsyncIterator, Iterator
from typing import Any

import plimsoll
from cases import ServiceCase, in_thread
from plimsoll import Request, Unloaded


class Served(ServiceCase):
    def test_they_are_reported_but_not_each(self) -> None:
        client = self.client()
        client.on_trim(lambda request: None)
        self.service.registered()
        for _ in range(3000):
            with client.inflight():
                pass
        with client.inflight():
            self.assertIsNotNone(self.service.wait("Inflight", lambda call: call["requests"] == 1))
        self.until(lambda: [g["requests"] for n, g in self.service.calls if n == "Inflight"][-1] == 0)
        self.assertLess(self.service.count("Inflight"), 12)

    def test_nothing_is_taken_while_one_is_inside(self) -> None:
        client = self.client()
        inside, may_leave, order = threading.Event(), threading.Event(), []
        client.on_offload(lambda request: order.append("offload"))

        @client.inflight()
        def infer() -> None:
            inside.set()
            may_leave.wait(5)
            order.append("inference")

        thread = in_thread(infer)
        self.assertTrue(inside.wait(5))
        self.service.offered(lambda o: o["gated"])
        number = self.service.request("offload", seconds=5)
        time.sleep(0.1)
        self.assertEqual(order, [])
        may_leave.set()
        self.assertEqual(self.service.answer(number)["outcome"], "done")
        thread.join(5)
        self.assertEqual(order, ["inference", "offload"])

    def test_who_does_not_come_out_is_not_interrupted(self) -> None:
        client = self.client()
        client.on_unload(lambda request: self.fail("it was unloaded"))
        with client.inflight():
            self.service.offered(lambda o: o["gated"])
            answer = self.service.asked("unload", seconds=0.6)
            self.assertEqual((answer["outcome"], answer["message"]), ("refused", "1 request is being served"))
            self.assertIsNone(client.given_up)
        with client.inflight("raise"):
            pass

    def test_a_request_waits_for_the_model_or_is_told_when_to_come_again(self) -> None:
        client = self.client()
        client.on_unload(lambda request: 1)
        client.on_restore(lambda request: None)
        client.inflight()
        self.service.offered(lambda o: o["gated"])
        self.service.asked("unload")
        with self.assertRaises(Unloaded) as raised, client.inflight("raise"):
            self.fail("it went in")
        self.assertEqual((raised.exception.level, raised.exception.retry_after), ("unload", 10.0))
        with self.assertRaises(Unloaded), client.inflight(timeout=0.05):
            self.fail("it went in")
        served = threading.Event()

        def serve() -> None:
            with client.inflight():
                served.set()

        in_thread(serve)
        self.assertFalse(served.wait(0.1))
        self.assertEqual(self.service.asked("restore")["outcome"], "done")
        self.assertTrue(served.wait(5))

    def test_what_serves_offloaded_is_let_in(self) -> None:
        client = self.client()
        client.on_offload(serves=True)(lambda request: 1)
        client.inflight()
        self.service.offered(lambda o: o["gated"])
        self.service.asked("offload")
        self.assertEqual(client.given_up, "offload")
        with client.inflight("raise"):
            pass

    def test_a_restore_that_fails_lets_nobody_in(self) -> None:
        client = self.client()
        works = [False]
        client.on_unload(lambda request: 1)

        @client.on_restore
        def restore(request: Request) -> None:
            if not works[0]:
                raise RuntimeError("the smoke test failed")
            with client.inflight():
                pass

        client.inflight()
        self.service.offered(lambda o: o["gated"])
        self.service.asked("unload")
        with self.assertLogs("plimsoll", "WARNING"):
            self.assertEqual(self.service.asked("restore")["outcome"], "failed")
        with self.assertRaises(Unloaded), client.inflight("raise"):
            self.fail("it went in")
        works[0] = True
        self.assertEqual(self.service.asked("restore")["outcome"], "done", "its smoke test goes through the door")
        with client.inflight("raise"):
            pass

    def test_a_request_within_a_request_does_not_wait_for_itself(self) -> None:
        client = self.client()
        client.on_unload(lambda request: 1)
        client.inflight()
        self.service.offered(lambda o: o["gated"])
        with client.inflight():
            number = self.service.request("unload", seconds=5)
            self.until(lambda: client._gate.closed)
            with client.inflight(timeout=1):
                self.assertEqual(client._gate.inside, 2)
        self.assertEqual(self.service.answer(number)["outcome"], "done")
        self.assertEqual(client._gate.inside, 0)

    def test_every_kind_of_function_is_counted(self) -> None:
        client = plimsoll.Plimsoll("none")

        def inside() -> int:
            return client._gate.inside

        @client.inflight()
        def plain() -> int:
            return inside()

        @client.inflight()
        def stream() -> Iterator[int]:
            yield inside()

        @client.inflight()
        async def task() -> int:
            return inside()

        @client.inflight()
        async def async_stream() -> AsyncIterator[int]:
            yield inside()

        async def all_async() -> list[int]:
            return [await task(), *[item async for item in async_stream()]]

        self.assertEqual([plain(), *stream(), *asyncio.run(all_async())], [1, 1, 1, 1])
        self.assertEqual(inside(), 0)

    def test_what_is_so_is_not_done_again(self) -> None:
        client, done = self.client(), []
        client.on_offload(lambda request: done.append("offload"))
        client.on_unload(lambda request: done.append("unload"))
        client.on_restore(lambda request: done.append("restore"))
        self.service.registered()
        for level in ("restore", "unload", "unload", "offload", "restore", "restore", "offload", "unload", "restore"):
            self.assertEqual(self.service.asked(level)["outcome"], "done")
        self.assertEqual(done, ["unload", "restore", "offload", "unload", "restore"])

    def test_what_was_withdrawn_half_way_is_not_called_done(self) -> None:
        client = self.client()
        client.on_unload(lambda request: 1)
        loaded: list[int] = []

        @client.on_restore
        def first(request: Request) -> None:
            self.service.notify(kind="withdrawn", withdrawn=request.id)
            self.until(lambda: request.withdrawn)

        client.on_restore(lambda request: loaded.append(1))
        self.service.registered()
        self.service.asked("unload")
        answer = self.service.asked("restore")
        self.assertEqual((answer["outcome"], loaded, client.given_up), ("partial", [], "unload"))
        with self.assertRaises(Unloaded), client.inflight("raise"):
            self.fail("it went in")


class Ladders(ServiceCase):
    def test_steps_are_taken_in_order_until_enough_has_come_back(self) -> None:
        client = self.client()
        batch = plimsoll.Setting(32, 8, 1, name="batch", gains=10)
        context = plimsoll.Setting(8192, 2048, gains=100)
        client.step_down([*batch.steps(), *context.steps()])
        offers = {offer["level"]: offer.get("gains") for offer in self.service.registered()["offers"]}
        self.assertEqual(offers, {"aggressive": {"host": 120, "gpus": {}}})
        first = self.service.asked("aggressive", wanted=15)
        self.assertEqual((first["freed"]["host"], batch.value, context.value), (20, 1, 8192))
        self.service.asked("aggressive")
        self.assertEqual(context.value, 2048)
        last = self.service.asked("aggressive")
        self.assertEqual(last["outcome"], "refused")
        self.service.asked("restore")
        self.assertEqual((batch.value, context.value), (32, 8192))

    def test_steps_are_taken_back_when_all_is_well(self) -> None:
        client = self.client()
        ladder = client.step_down([(lambda: 5, lambda: None), (lambda: 5, lambda: None)])
        ladder._calm = 0.1
        self.service.registered()

        def tier(old: str, new: str) -> None:
            self.service.notify(kind="tier", tier={"resource": "host", "tier": new, "previous": old})

        tier("normal", "critical")
        self.service.asked("aggressive", wanted=10)
        self.assertEqual(ladder.taken, 2)
        tier("critical", "elevated")
        time.sleep(0.25)
        self.assertEqual(ladder.taken, 2)
        tier("elevated", "normal")
        self.until(lambda: ladder.taken == 0)

    def test_a_step_that_fails_is_told(self) -> None:
        client = self.client()
        ladder = client.step_down([(lambda: 1 // 0, lambda: None)])
        self.service.registered()
        with self.assertLogs("plimsoll", "WARNING"):
            self.assertEqual(self.service.asked("aggressive")["outcome"], "failed")
        self.assertEqual(ladder.taken, 0)


class Asgi(unittest.TestCase):
    def test_a_server_counts_and_answers_503(self) -> None:
        from plimsoll import asgi

        client = plimsoll.Plimsoll("none")
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((scope["path"], client._gate.inside))

        async def send(message: Any) -> None:
            seen.append(message.get("status") or message["body"])

        async def serve(path: str) -> None:
            server = asgi.Middleware(app, client, outside={"/healthz"})
            await server({"type": "http", "path": path}, None, send)  # type: ignore[arg-type]

        asyncio.run(serve("/infer"))
        client._gate.close("unload")
        asyncio.run(serve("/infer"))
        asyncio.run(serve("/healthz"))
        self.assertEqual((seen[0], seen[1], seen[3]), (("/infer", 1), 503, ("/healthz", 0)))


if __name__ == "__main__":
    unittest.main()
