"""The hooks for PyTorch, against a double of it, and against a real one where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import time
import unittest
from typing import Any

import torch_double
from cases import ServiceCase, in_thread
from plimsoll import Unloaded

GPU = "GPU-0123-abcd"


class Hooks(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        before = torch_double.install()
        self.addCleanup(lambda: sys.modules.update(torch=before) if before else sys.modules.pop("torch"))
        sys.modules.pop("plimsoll.torch", None)
        self.hooks: Any = importlib.import_module("plimsoll.torch")

    def managed(self, model: Any = None, **settings: Any) -> Any:
        managed = self.hooks.manage(self.client(), model, **settings)
        managed.use()
        self.service.offered(lambda offer: offer["gated"])
        return managed

    def test_what_is_offered_is_what_the_model_has(self) -> None:
        managed = self.managed(load=lambda: torch_double.Module(300, 100))
        offers = {offer["level"]: offer.get("gains") for offer in self.service.registered()["offers"]}
        self.assertEqual(offers["offload"], {"host": -400, "gpus": {GPU: 400}})
        self.assertEqual(offers["unload"], {"host": 0, "gpus": {GPU: 400}})
        self.assertEqual(set(offers), {"gc", "aggressive", "offload", "unload"})
        with managed as model:
            self.assertEqual(model(1), (2, "cuda:0"))

    def test_trim_returns_what_the_allocator_keeps(self) -> None:
        self.managed(torch_double.Module(100))
        torch_double.gpu.reserved = 700
        answer = self.service.asked("gc", resources=[f"gpu:{GPU}"])
        self.assertEqual((answer["outcome"], answer["freed"]["gpus"]), ("done", {GPU: 600}))
        torch_double.gpu.reserved = 500
        self.assertEqual(self.service.asked("aggressive")["freed"]["gpus"], {GPU: 400})
        self.assertIn("cublas", torch_double.calls)

    def test_it_goes_to_the_host_and_comes_back(self) -> None:
        tried: list[Any] = []
        managed = self.managed(torch_double.Module(300, 100), smoke=lambda model: tried.append(model(0)[1]))
        self.assertEqual(self.service.asked("offload")["freed"]["gpus"], {GPU: 400})
        self.assertEqual((torch_double.gpu.reserved, managed.model(0)[1]), (0, "cpu"))
        with self.assertRaises(Unloaded), managed.use("raise"):
            self.fail("it went in")
        self.assertEqual(self.service.asked("restore")["outcome"], "done")
        self.assertEqual((tried, torch_double.gpu.allocated), (["cuda:0"], 400))
        with managed as model:
            self.assertEqual(model(1), (2, "cuda:0"))

    def test_moving_never_races_inference(self) -> None:
        managed = self.managed(torch_double.Module(*[1] * 200), serves_offloaded=True)
        stop, wrong, served = threading.Event(), [], [0]

        def infer() -> None:
            while not stop.is_set():
                with managed as model:
                    try:
                        model(1)
                        time.sleep(0.0005)
                        model(1)
                        served[0] += 1
                    except RuntimeError as error:
                        wrong.append(error)

        threads = [in_thread(infer) for _ in range(4)]
        for level in ("offload", "restore") * 5:
            self.assertEqual(self.service.asked(level)["outcome"], "done")
        stop.set()
        for thread in threads:
            thread.join(5)
        self.assertEqual(wrong, [])
        self.assertGreater(served[0], 0)

    def test_a_restore_without_room_leaves_it_whole_on_the_host(self) -> None:
        managed = self.managed(torch_double.Module(300, 300))
        self.service.asked("offload")
        torch_double.gpu.total = 400
        with self.assertLogs("plimsoll", "WARNING"):
            answer = self.service.asked("restore")
        self.assertEqual(answer["outcome"], "failed")
        self.assertIn("out of memory", answer["message"])
        self.assertEqual((managed.model(0)[1], torch_double.gpu.reserved), ("cpu", 0))
        torch_double.gpu.total = 1000
        self.assertEqual(self.service.asked("restore")["outcome"], "done")

    def test_it_is_dropped_and_loaded_again(self) -> None:
        loads = [0]

        def load() -> torch_double.Module:
            loads[0] += 1
            return torch_double.Module(400)

        managed = self.managed(load=load)
        answer = self.service.asked("unload")
        self.assertEqual((answer["outcome"], answer["freed"]["gpus"]), ("done", {GPU: 400}))
        self.assertEqual((torch_double.gpu.allocated, managed.loaded), (0, False))
        self.assertEqual(self.service.asked("offload")["outcome"], "done", "more than that is given up")
        self.assertEqual(self.service.asked("restore")["outcome"], "done")
        self.assertEqual((torch_double.gpu.allocated, loads[0]), (400, 2))

    def test_a_model_that_somebody_holds_is_not_called_freed(self) -> None:
        managed = self.managed(load=lambda: torch_double.Module(400))
        held = managed.model
        with self.assertLogs("plimsoll", "WARNING"):
            answer = self.service.asked("unload")
        self.assertEqual(answer["outcome"], "failed")
        self.assertIn("still refers to the model", answer["message"])
        with managed as model:
            self.assertIs(model, held, "it serves on: nothing would be won by loading a second one")

    def test_a_smoke_test_that_fails_lets_nobody_in(self) -> None:
        works = [False]

        def smoke(model: Any) -> None:
            if not works[0]:
                raise RuntimeError("it answers nonsense")

        managed = self.managed(load=lambda: torch_double.Module(400), smoke=smoke)
        self.service.asked("unload")
        with self.assertLogs("plimsoll", "WARNING"):
            self.assertIn("nonsense", self.service.asked("restore")["message"])
        self.assertEqual((managed.loaded, torch_double.gpu.reserved), (False, 0))
        works[0] = True
        self.assertEqual(self.service.asked("restore")["outcome"], "done")

    def test_memory_that_ends_in_the_middle_of_a_move(self) -> None:
        torch_double.gpu.total = 400
        with self.assertRaises(torch_double.OutOfMemoryError):
            self.hooks.manage(self.client(), torch_double.Module(300, 300))


class RealTorch(ServiceCase):
    def test_a_model_on_the_cpu_is_dropped_and_loaded_again(self) -> None:
        if not importlib.util.find_spec("torch"):
            self.skipTest("PyTorch is not installed")
        torch: Any = importlib.import_module("torch")
        sys.modules.pop("plimsoll.torch", None)
        hooks: Any = importlib.import_module("plimsoll.torch")
        layer = 64 << 20
        managed = hooks.manage(
            self.client(),
            load=lambda: torch.nn.Sequential(*[torch.nn.Linear(4096, 4096, bias=False) for _ in range(4)]),
            device="cpu",
            smoke=lambda model: model(torch.zeros(1, 4096)),
        )
        managed.use()
        offers = {o["level"]: o.get("gains") for o in self.service.offered(lambda o: o["gated"])["offers"]}
        self.assertEqual(offers["unload"], {"host": 4 * layer, "gpus": {}})
        self.assertNotIn("offload", offers, "there is nowhere to go")
        with managed as model:
            expected = tuple(model(torch.ones(1, 4096)).shape)
        del model
        answer = self.service.asked("unload", seconds=20)
        self.assertEqual(answer["outcome"], "done", answer)
        self.assertGreater(answer["freed"]["host"], 3 * layer)
        self.assertEqual(self.service.asked("restore", seconds=20)["outcome"], "done")
        with managed as model:
            self.assertEqual(tuple(model(torch.ones(1, 4096)).shape), expected)
        self.assertEqual(self.service.asked("aggressive")["outcome"], "done")


if __name__ == "__main__":
    unittest.main()
