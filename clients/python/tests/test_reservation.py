"""Room that is asked for before a model is loaded."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import unittest
from typing import Any
from unittest import mock

from cases import ServiceCase, in_thread
from plimsoll import ControlError, NoRoom, Option
from service import GIB, Refusal


class Reserved(ServiceCase):
    def test_it_is_committed_with_what_it_took(self) -> None:
        client = self.client()
        with client.reserve(2 * GIB) as room:
            self.assertEqual((room.bytes, room.controlled), (2 * GIB, True))
            weights = bytearray(os.urandom(1 << 20) * 32)
        committed = self.service.wait("Commit")
        assert committed is not None
        self.assertTrue(24 << 20 < committed["measured"] < 80 << 20, committed)
        self.assertEqual(self.service.reserved, {})
        del weights

    def test_a_load_that_fails_gives_it_back(self) -> None:
        with self.assertRaises(MemoryError), self.client().reserve(GIB):
            raise MemoryError
        self.assertEqual([self.service.count(name) for name in ("ReportOom", "Release", "Commit")], [1, 1, 0])

    def test_no_room_says_what_there_is(self) -> None:
        with self.assertRaises(NoRoom) as raised:
            self.client().reserve(20 * GIB)
        error = raised.exception
        self.assertEqual((error.reason, error.retry_after, error.admissible), ("no_room", 10.0, 15 * GIB))
        self.assertEqual(str(error), "no room at all")

    def test_the_first_that_fits_is_chosen(self) -> None:
        client = self.client()
        smaller: list[Any] = [Option(18 * GIB, "int8"), (8 * GIB, "int4"), (GIB, "tiny")]
        with client.reserve(30 * GIB, value="fp16", degrade=smaller) as room:
            self.assertEqual((room.value, room.bytes), ("int4", 8 * GIB))
        self.assertEqual(self.service.count("Reserve"), 1, "the controller tries them, in one call")

    def test_options_on_other_gpus_are_asked_for_one_by_one(self) -> None:
        client = self.client()
        cpu_only = Option(8 * GIB, "cpu")
        with client.reserve(GIB, gpus={"GPU-1": 40 * GIB}, value="gpu", degrade=[(GIB, "half"), cpu_only]) as room:
            self.assertEqual((room.value, room.gpus), ("cpu", {}))
        with self.assertRaises(NoRoom):
            client.reserve(GIB, gpus={"GPU-1": 40 * GIB}, degrade=[Option(40 * GIB)], wait=0.2)

    def test_whoever_waits_gets_what_is_given_back(self) -> None:
        first = self.client().reserve(10 * GIB)
        got: list[int] = []
        waiting = in_thread(lambda: got.append(self.client().reserve(10 * GIB, wait=10).bytes))
        time.sleep(0.2)
        self.assertEqual(got, [])
        first.release()
        first.release()
        waiting.join(5)
        self.assertEqual(got, [10 * GIB])

    def test_of_two_racing_loaders_one_is_granted(self) -> None:
        client = self.client()
        results: list[object] = []
        together = threading.Barrier(8)

        def race() -> None:
            together.wait()
            try:
                results.append(client.reserve(10 * GIB).controlled)
            except NoRoom:
                results.append(None)

        racers = [in_thread(race) for _ in range(8)]
        for racer in racers:
            racer.join(5)
        self.assertEqual(sorted(results, key=str), [None] * 7 + [True])

    def test_it_is_kept_by_heartbeats_and_can_change(self) -> None:
        with self.client().reserve(GIB) as room:
            self.assertIsNotNone(self.service.wait("Heartbeat"))
            room.amend(3 * GIB)
            self.assertEqual((room.bytes, list(self.service.reserved.values())), (3 * GIB, [3 * GIB]))
            self.assertFalse(room.lost)

    def test_a_controller_that_restarts_while_it_loads(self) -> None:
        with self.client().reserve(GIB) as room:
            self.service.stop()
            self.service.start()
            self.until(lambda: room.lost)

    def test_a_controller_that_restarts_while_one_waits_is_asked_again(self) -> None:
        first = self.client().reserve(10 * GIB)
        got: list[bool] = []
        waiting = in_thread(lambda: got.append(self.client().reserve(10 * GIB, wait=30).controlled))
        time.sleep(0.2)
        self.service.stop()
        self.service.start()
        waiting.join(5)
        self.assertEqual(got, [True])
        self.assertEqual(list(self.service.reserved.values()), [10 * GIB])
        first.release()

    def test_a_controller_that_does_not_know_us_stops_nobody(self) -> None:
        def refuse(_: object) -> dict[str, object]:
            raise Refusal("org.varlink.service.PermissionDenied")

        self.service.answers["Reserve"] = refuse
        self.assertFalse(self.client().reserve(GIB).controlled)

    def test_a_mistake_is_not_hidden(self) -> None:
        def refuse(_: object) -> dict[str, object]:
            raise Refusal("BadParameter", parameter="gpus", message="names no GPU")

        self.service.answers["Reserve"] = refuse
        with self.assertRaisesRegex(ControlError, "BadParameter: names no GPU"):
            self.client().reserve(GIB, gpus={"GPU-9": 1})

    def test_headroom(self) -> None:
        room = self.client().headroom()
        assert room is not None
        self.assertEqual((room.tier, room.available, room.admissible), ("normal", 16 * GIB, 15 * GIB))
        self.assertEqual((room.gpus["GPU-1"].admissible, room.gpus["GPU-1"].tier), (7 * GIB, "normal"))

    def test_what_exec_reserved_is_committed(self) -> None:
        client = self.client()
        self.assertFalse(client.commit_inherited(5))
        self.service.reserved[7] = GIB
        with mock.patch.dict(os.environ, {"PLIMSOLL_RESERVATION": "7"}):
            self.assertTrue(client.commit_inherited(5))
            self.assertFalse(client.commit_inherited(5), "it is over")
        self.assertEqual(self.service.reserved, {})


class Async(ServiceCase):
    def test_it_is_awaited_and_committed(self) -> None:
        async def load() -> None:
            client = self.aio()
            async with client.reserve(GIB) as room:
                self.assertTrue(room.controlled)
            plain = await client.reserve(GIB)
            plain.release()
            self.assertIsNotNone(await client.headroom())
            with self.assertRaises(NoRoom):
                await client.reserve(40 * GIB)

        asyncio.run(load())
        self.assertEqual([self.service.count(name) for name in ("Commit", "Release")], [1, 1])

    def test_who_is_cancelled_holds_nothing_and_waits_no_more(self) -> None:
        first = self.client().reserve(10 * GIB)

        async def load() -> None:
            asking = asyncio.ensure_future(self.aio().reserve(10 * GIB, wait=60).__aenter__())
            await asyncio.sleep(0.2)
            begun = time.monotonic()
            asking.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await asking
            self.assertLess(time.monotonic() - begun, 0.1)

        asyncio.run(load())
        first.release()
        time.sleep(0.3)
        self.assertEqual(self.service.reserved, {})

    def test_the_loop_runs_while_one_waits(self) -> None:
        self.client().reserve(10 * GIB)

        async def load() -> int:
            turns = 0
            asking = asyncio.ensure_future(self.aio().reserve(10 * GIB, wait=1).__aenter__())
            while not asking.done():
                turns += 1
                await asyncio.sleep(0.01)
            self.assertIsInstance(asking.exception(), NoRoom)
            return turns

        self.assertGreater(asyncio.run(load()), 20)


if __name__ == "__main__":
    unittest.main()
