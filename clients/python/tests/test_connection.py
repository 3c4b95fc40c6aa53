"""Controllers that are not there, go away, come back, or refuse."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

import plimsoll
from cases import ServiceCase
from plimsoll import link, wire
from service import GIB, Refusal


class WithoutController(unittest.TestCase):
    def test_nothing_happens(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for path in (f"{directory}/none.sock", directory, "none"):
                client = plimsoll.Plimsoll(path)
                called: list[Any] = []
                client.on_unload(called.append)
                client.on_tier(lambda *tier, called=called: called.append(tier))
                with client.inflight(), client.reserve(10 * GIB, wait=5, degrade=[(GIB, "small")]) as room:
                    self.assertEqual((room.bytes, room.controlled, room.lost), (10 * GIB, False, False))
                    room.amend(20 * GIB)
                    self.assertEqual(room.bytes, 20 * GIB)
                self.assertIsNone(client.headroom())
                self.assertIsNone(client.status())
                self.assertFalse(client.connected)
                client.close()
                self.assertEqual(called, [])

    def test_where_the_socket_is(self) -> None:
        with mock.patch.dict(os.environ, {"PLIMSOLL_CONTROL": "/a"}):
            self.assertEqual((wire.socket_path(), wire.socket_path("/b")), ("/a", "/b"))
        with mock.patch.dict(os.environ, {"PLIMSOLL_CONTROL": "none"}):
            self.assertIsNone(wire.socket_path())
        with mock.patch.dict(os.environ):
            os.environ.pop("PLIMSOLL_CONTROL", None)
            self.assertEqual(wire.socket_path(), "/run/plimsoll/control.sock")

    def test_a_client_without_callbacks_has_no_thread(self) -> None:
        before = threading.active_count()
        with plimsoll.Plimsoll("none").inflight():
            self.assertEqual(threading.active_count(), before)

    def test_waits_grow_and_differ(self) -> None:
        waits = link.Backoff(chance=lambda: 1.0)
        self.assertEqual([round(waits.next(5.0), 3) for _ in range(8)], [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        waits.reset()
        self.assertEqual(waits.next(5.0), 0.1)
        many = {link.Backoff().next(5.0) for _ in range(50)}
        self.assertTrue(len(many) > 40 and all(0.05 <= wait <= 0.1 for wait in many))


class Restarts(ServiceCase):
    def test_a_controller_that_comes_later_is_found(self) -> None:
        self.service.stop()
        client = self.client()
        client.on_trim(lambda request: 1)
        threading.Event().wait(0.3)
        self.service.start()
        self.service.registered()
        self.assertEqual(self.service.asked("gc")["outcome"], "done")

    def test_a_restart_in_the_middle_of_a_request(self) -> None:
        client = self.client()
        begun, may_end = threading.Event(), threading.Event()
        saw: list[bool] = []

        @client.on_trim
        def trim(request: plimsoll.Request) -> int:
            begun.set()
            may_end.wait(5)
            saw.append(request.withdrawn)
            return 1

        self.service.registered()
        old = self.service.request("gc")
        self.assertTrue(begun.wait(5))
        self.service.stop()
        self.service.start()
        self.service.registered()
        may_end.set()
        self.assertEqual(self.service.asked("gc")["outcome"], "done")
        self.assertEqual(saw[0], True, "who would have waited for it is gone")
        self.assertIsNone(self.service.wait("Acknowledge", lambda call: call["request"] == old, 0.1))

    def test_who_is_refused_asks_again_and_can_close(self) -> None:
        refusals = [0]

        def refuse(_: Any) -> Any:
            refusals[0] += 1
            raise Refusal("NotAWorkload", message="start it with plimsoll exec")

        self.service.answers["Register"] = refuse
        client = self.client()
        client.on_trim(lambda request: 1)
        self.until(lambda: refusals[0] >= 2)
        client.close()
        self.assertFalse(any(thread.name == "plimsoll-link" for thread in threading.enumerate()))

    def test_nonsense_does_no_harm(self) -> None:
        answers = [b"\0", b"[]\0", b"{\0", b'{"parameters":5}\0', b"\xff\0", b'{"parameters":{"session":"x"}}\0', b""]
        self.service.stop()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.service.path)
        listener.listen()
        self.addCleanup(listener.close)
        client = self.client()
        client.on_trim(lambda request: 1)
        patient = mock.patch.multiple(link, REFUSED_SECONDS=0.1, ABSENT_SECONDS=0.1)
        with patient, self.assertLogs("plimsoll", "ERROR"):
            for answer in answers:
                stream, _ = listener.accept()
                stream.recv(4096)
                stream.sendall(answer)
                stream.close()
            listener.accept()[0].close()

    def test_what_was_given_up_is_taken_back_when_the_controller_is_gone(self) -> None:
        client = self.client(orphaned_after=0.2)
        restored = threading.Event()
        client.on_unload(lambda request: 1)
        client.on_restore(lambda request: restored.set())
        self.service.registered()
        self.service.asked("unload")
        self.assertEqual(client.given_up, "unload")
        self.service.stop()
        self.assertTrue(restored.wait(5))
        self.until(lambda: client.given_up is None)

    def test_what_was_taken_for_failed_is_taken_back(self) -> None:
        client = self.client(orphaned_after=0.2)
        client.on_trim(levels=["gc"])(lambda request: 1)
        client.on_unload(lambda request: int(threading.Event().wait(0.8)))
        restored = threading.Event()
        client.on_restore(lambda request: restored.set())
        self.service.registered()
        self.assertIn("late", self.service.asked("unload", seconds=0.5)["message"])
        self.until(lambda: client.given_up == "unload")
        self.assertEqual(self.service.asked("gc")["outcome"], "done", "which changes nothing about it")
        self.assertTrue(restored.wait(5))

    def test_what_is_closed_stays_as_it_is(self) -> None:
        client = self.client(orphaned_after=0.05)
        client.on_unload(lambda request: 1)
        client.on_restore(lambda request: self.fail("it was restored"))
        self.service.registered()
        self.service.asked("unload")
        client.close()
        self.assertIsNone(self.service.wait("Self", seconds=0.2))
        self.assertEqual(client.given_up, "unload")

    def test_a_controller_that_forgot_and_has_no_room_is_not_overrun(self) -> None:
        client = self.client(orphaned_after=0.8)
        restored = threading.Event()
        client.on_unload(lambda request: 1)
        client.on_restore(lambda request: restored.set())
        self.service.registered()
        self.service.asked("unload")
        tiers = {"host": "critical"}
        self.service.answers["Self"] = lambda _: {"level": "nothing", "tiers": tiers}
        self.service.stop()
        self.service.start()
        self.service.registered()
        self.assertIsNotNone(self.service.wait("Self"))
        self.assertFalse(restored.wait(0.3))
        tiers["host"] = "normal"
        self.assertTrue(restored.wait(5))


if __name__ == "__main__":
    unittest.main()
