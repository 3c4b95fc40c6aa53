"""What a program is asked, and how it answers."""

from __future__ import annotations

import threading
import time
import unittest
from typing import Any

from cases import ServiceCase
from plimsoll import Freed, Refuse, Request


class Requests(ServiceCase):
    def test_offers_are_what_is_registered(self) -> None:
        client = self.client()
        client.on_trim(levels=["gc"], gains=10, takes=0.5)(lambda request: None)
        client.on_unload(gains=Freed(100, {"GPU-1": 7}), takes=2)(lambda request: None)
        client.on_unload(gains=50, takes=1)(lambda request: 0)
        offered = self.service.registered()
        self.assertEqual(
            offered["offers"],
            [
                {"level": "gc", "gains": {"host": 10, "gpus": {}}, "takesMilliseconds": 500},
                {"level": "unload", "gains": {"host": 150, "gpus": {"GPU-1": 7}}, "takesMilliseconds": 3000},
            ],
        )
        self.assertIs(offered["gated"], False)
        self.assertEqual(self.service.count("Register"), 1, "what is registered together is offered together")

    def test_what_changes_is_offered_again(self) -> None:
        client = self.client()
        client.on_trim(lambda request: None)
        self.service.registered()
        unload = client.on_unload(lambda request: None)
        client.inflight()
        self.service.offered(lambda o: len(o["offers"]) == 3 and o["gated"])
        self.assertTrue(client.off(unload))
        self.assertFalse(client.off(unload))
        self.until(lambda: len(self.service.registered()["offers"]) == 2)

    def test_a_request_tells_all_and_is_answered_with_what_was_freed(self) -> None:
        client = self.client()
        seen: list[Request] = []

        @client.on_trim
        def trim(request: Request) -> int:
            seen.append(request)
            return 5

        client.on_trim(lambda request: Freed(1, {"GPU-1": 2}))
        client.on_trim(lambda request: None)
        self.service.registered()
        answer = self.service.asked("gc", seconds=4, wanted=9, resources=["host", "gpu:GPU-1"])
        self.assertEqual((answer["outcome"], answer["freed"]), ("done", {"host": 6, "gpus": {"GPU-1": 2}}))
        (request,) = seen
        self.assertEqual((request.level, request.bytes, request.reason), ("gc", 9, "a test"))
        self.assertEqual((request.host, request.gpus), (True, ("GPU-1",)))
        self.assertTrue(3 < request.remaining <= 4, request.remaining)

    def test_a_level_includes_the_lighter_ones(self) -> None:
        client = self.client()
        order: list[str] = []
        client.on_trim(levels=["gc"])(lambda request: order.append("gc"))
        client.on_trim(levels=["aggressive"])(lambda request: order.append("aggressive"))
        client.on_unload(lambda request: order.append("unload"))
        self.service.registered()
        self.service.asked("aggressive")
        self.service.asked("unload")
        self.assertEqual(order, ["aggressive", "gc", "unload", "gc"])

    def test_order_is_by_priority_then_by_registration_and_nobody_is_there_twice(self) -> None:
        client = self.client()
        order: list[str] = []

        def callback(name: str) -> Any:
            return lambda request: order.append(name)

        first, second, third = callback("first"), callback("second"), callback("third")
        client.on_trim(first)
        client.on_trim(second)
        client.on_trim(priority=5)(third)
        client.on_trim(first)
        self.service.registered()
        self.service.asked("gc")
        self.assertEqual(order, ["third", "first", "second"])

    def test_an_error_is_told_and_stops_nobody_else(self) -> None:
        client = self.client()
        ran: list[str] = []

        @client.on_trim(priority=1)
        def broken(request: Request) -> None:
            raise ValueError("the cache is\nbroken")

        client.on_trim(lambda request: ran.append("other"))
        self.service.registered()
        with self.assertLogs("plimsoll", "WARNING"):
            answer = self.service.asked("gc")
        self.assertEqual((answer["outcome"], ran), ("partial", ["other"]))
        self.assertTrue(answer["message"].endswith("broken: ValueError: the cache is"), answer)

    def test_all_failed_all_refused_and_nobody_there(self) -> None:
        client = self.client()
        client.on_trim(levels=["gc"])(lambda request: "nonsense")  # type: ignore[type-var]

        @client.on_trim(levels=["aggressive"])
        def not_now(request: Request) -> None:
            raise Refuse("a batch is running")

        self.service.registered()
        with self.assertLogs("plimsoll", "WARNING"):
            self.assertEqual(self.service.asked("gc")["outcome"], "failed")
        refused = self.service.asked("aggressive")
        self.assertEqual(refused["outcome"], "refused")
        self.assertIn("a batch is running", refused["message"])
        self.assertEqual(self.service.asked("offload")["outcome"], "refused")

    def test_who_is_late_is_answered_for(self) -> None:
        client = self.client()
        returned, may_end = threading.Event(), threading.Event()

        @client.on_trim(levels=["gc"])
        def slow(request: Request) -> None:
            may_end.wait(10)
            returned.set()

        client.on_trim(levels=["aggressive"])(lambda request: 3)
        self.service.registered()
        begun = time.monotonic()
        late, behind = self.service.request("gc", seconds=3), self.service.request("aggressive", seconds=3)
        answer = self.service.answer(late)
        self.assertLess(time.monotonic() - begun, 3, "before the deadline, not after it")
        self.assertEqual(answer["outcome"], "failed")
        self.assertRegex(answer["message"], "late: .*slow has not returned")
        self.assertIn("another request", self.service.answer(behind)["message"])
        may_end.set()
        self.assertTrue(returned.wait(5))
        self.assertEqual(self.service.asked("aggressive")["outcome"], "done", "it goes on")
        answers = [c for name, c in self.service.calls if name == "Acknowledge" and c["request"] == late]
        self.assertEqual(len(answers), 1)

    def test_what_is_withdrawn_is_not_begun(self) -> None:
        client = self.client()
        may_end, ran = threading.Event(), []
        saw = threading.Event()

        @client.on_trim(levels=["gc"])
        def first(request: Request) -> None:
            while not may_end.wait(0.01):
                if request.withdrawn:
                    saw.set()

        client.on_trim(levels=["aggressive"])(lambda request: ran.append("second"))
        self.service.registered()
        running, waiting = self.service.request("gc"), self.service.request("aggressive")
        self.service.notify(kind="withdrawn", withdrawn=waiting)
        self.service.notify(kind="withdrawn", withdrawn=running)
        self.assertTrue(saw.wait(5))
        may_end.set()
        self.assertEqual(self.service.answer(running)["outcome"], "done")
        self.assertEqual(self.service.asked("gc")["outcome"], "done")
        self.assertEqual(ran, [])

    def test_many_requests_at_once_are_done_one_after_the_other(self) -> None:
        client = self.client()
        running, most = [0], [0]

        @client.on_trim
        def trim(request: Request) -> int:
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.01)
            running[0] -= 1
            return 1

        self.service.registered()
        numbers = [self.service.request("gc") for _ in range(20)]
        self.assertEqual({self.service.answer(number)["outcome"] for number in numbers}, {"done"})
        self.assertEqual(most, [1])

    def test_coroutine_functions_are_for_aio(self) -> None:
        async def trim(request: Request) -> None: ...

        with self.assertRaisesRegex(TypeError, "aio"):
            self.client().on_trim(trim)


class Notices(ServiceCase):
    def test_tiers_thrash_and_shutdown_are_told(self) -> None:
        client = self.client()
        told: list[Any] = []
        client.on_tier(lambda resource, old, new: told.append((resource, old, new)))
        client.on_thrash(lambda old, new: told.append((old, new)))
        client.on_shutdown(lambda shutdown: told.append((shutdown.seconds, shutdown.reason)))
        self.assertEqual(self.service.registered()["offers"], [])
        tier = {"resource": "gpu:GPU-1", "tier": "critical", "previous": "normal"}
        self.service.notify(kind="tier", tier=tier)
        self.service.notify(kind="thrash", thrash={"state": "thrashing", "previous": "healthy"})
        self.service.notify(kind="shutdown", shutdown={"seconds": 5, "reason": "the daemon stops"})
        self.until(lambda: len(told) == 3)
        expected = [("gpu:GPU-1", "normal", "critical"), ("healthy", "thrashing"), (5.0, "the daemon stops")]
        self.assertEqual(told, expected)
        self.assertEqual((client.tiers, client.thrash), ({"gpu:GPU-1": "critical"}, "thrashing"))

    def test_a_request_that_takes_long_keeps_no_notice_back(self) -> None:
        client = self.client()
        told, may_end = threading.Event(), threading.Event()
        client.on_trim(lambda request: int(not may_end.wait(5)))
        client.on_tier(lambda *_: told.set())
        self.service.registered()
        self.service.request("gc")
        self.service.notify(kind="tier", tier={"resource": "host", "tier": "critical", "previous": "normal"})
        self.assertTrue(told.wait(2))
        may_end.set()

    def test_a_listener_that_fails_stops_nobody(self) -> None:
        client = self.client()
        told = threading.Event()
        client.on_tier(lambda *_: 1 / 0, priority=1)
        client.on_tier(lambda *_: told.set())
        self.service.registered()
        with self.assertLogs("plimsoll", "ERROR"):
            self.service.notify(kind="tier", tier={"resource": "host", "tier": "critical", "previous": "normal"})
            self.assertTrue(told.wait(2))


if __name__ == "__main__":
    unittest.main()
