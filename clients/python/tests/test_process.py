"""What happens around the client: forks, the end of the interpreter, and what counting costs."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
import unittest

from cases import ServiceCase
from plimsoll import host_bytes, trim_malloc


def run(code: str, *arguments: str, seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Runs a program with the client to its end."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)


class Forks(ServiceCase):
    def test_a_worker_registers_for_itself_and_the_parent_stays(self) -> None:
        client = self.client()
        # What is offered does not change any more once it is registered, or the parent would come a second time.
        with client.inflight():
            client.on_trim(levels=["gc"])(lambda request: os.getpid())
            self.service.registered()
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            try:
                self.service.registered(2)
                number = self.service.request("gc")
                self.until(lambda: self.service.count("Acknowledge") == 2)
                freed = {c["freed"]["host"] for n, c in self.service.calls if n == "Acknowledge"}
                self.assertEqual((freed, number > 0), ({os.getpid(), child}, True))
            finally:
                os.kill(child, 9)
                os.waitpid(child, 0)
        self.until(lambda: len(self.service._streams) == 1)
        self.assertTrue(client.connected)

    def test_a_fork_while_locks_are_held_does_not_hang(self) -> None:
        client = self.client()
        client.on_trim(lambda request: None)
        self.service.registered()
        with client._gate._condition, client._registry._lock, client._desk._lock:
            child = os.fork()
            if child == 0:
                with client.inflight():
                    client.on_trim(lambda request: None)
                os._exit(7)
        self.assertEqual(os.waitpid(child, 0)[1], 7 << 8)

    def test_a_helper_of_multiprocessing_is_left_out(self) -> None:
        client = self.client()
        client.on_trim(lambda request: None)
        self.service.registered()
        helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.6,))
        helper.start()
        helper.join()
        self.assertEqual(self.service.count("Register"), 1)

    def test_a_reservation_is_the_parents(self) -> None:
        room = self.client().reserve(1 << 30)
        child = os.fork()
        if child == 0:
            room.release()
            os._exit(0)
        os.waitpid(child, 0)
        self.assertEqual(self.service.count("Release"), 0)
        self.assertEqual(len(self.service.reserved), 1)
        room.release()
        self.assertEqual(self.service.reserved, {})


class Ends(ServiceCase):
    def test_the_interpreter_ends_at_once_and_without_a_word(self) -> None:
        code = """
            import sys, time, threading, plimsoll
            client = plimsoll.Plimsoll(sys.argv[1])
            begun = threading.Event()
            client.on_trim(lambda request: (begun.set(), time.sleep(60))[0])
            client.on_tier(lambda *_: None)
            room = client.reserve(1 << 30)
            {wait}
            client.inflight().__enter__()
            print("ends")
        """
        for wait in ("pass", "time.sleep(0.3)", "begun.wait(10)"):
            process_code = textwrap.dedent(code).format(wait=wait)
            before = self.service.count("Subscribe")
            if wait.startswith("begun"):
                import threading

                def ask(before: int = before) -> None:
                    self.until(lambda: self.service.count("Subscribe") > before)
                    self.service.request("gc", seconds=30)

                threading.Thread(target=ask, daemon=True).start()
            begun = time.monotonic()
            done = run(process_code, self.service.path)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "ends\n", ""), wait)
            self.assertLess(time.monotonic() - begun, 5.0)

    def test_without_a_controller_too(self) -> None:
        code = """
            import plimsoll, asyncio, plimsoll.aio
            plimsoll.Plimsoll("/nowhere/control.sock").on_trim(lambda request: None)
            async def main():
                async with plimsoll.aio.Plimsoll("/nowhere/control.sock") as client:
                    client.on_trim(lambda request: None)
                    async with client.inflight(), client.reserve(5) as room:
                        assert not room.controlled
            asyncio.run(main())
        """
        done = run(code)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_importing_loads_little(self) -> None:
        done = run("import sys, plimsoll; print([m for m in ('torch', 'numpy', 'asgiref') if m in sys.modules])")
        self.assertEqual((done.stdout, done.stderr), ("[]\n", ""))


class Costs(ServiceCase):
    def test_counting_a_request_costs_microseconds(self) -> None:
        client = self.client()
        client.on_trim(lambda request: None)
        self.service.registered()

        class Nothing:
            def __enter__(self) -> None: ...

            def __exit__(self, *_: object) -> None: ...

        def counted() -> None:
            for _ in range(5000):
                with client.inflight():
                    pass

        def nothing() -> None:
            for _ in range(5000):
                with Nothing():
                    pass

        def best(function: object) -> float:
            times = []
            for _ in range(7):
                begun = time.perf_counter()
                function()  # type: ignore[operator]
                times.append(time.perf_counter() - begun)
            return min(times) / 5000

        cost, base = best(counted), best(nothing)
        print(
            f"\n  a counted request: {cost * 1e6:.2f} us, {cost / base:.0f} times a context manager that does nothing"
        )
        self.assertLess(cost / base, 60)
        self.assertLess(self.service.count("Inflight"), 50)


class Malloc(unittest.TestCase):
    def test_the_c_library_gives_back_what_it_keeps(self) -> None:
        # Blocks below the threshold of mmap; the last one keeps the heap from shrinking by itself.
        blocks = [bytes(64 << 10) + bytes([i % 256]) for i in range(1000)]
        last = blocks.pop()
        held = host_bytes() or 0
        blocks.clear()
        trim_malloc()
        self.assertGreater(held - (host_bytes() or 0), 32 << 20)
        self.assertTrue(last)


if __name__ == "__main__":
    unittest.main()
