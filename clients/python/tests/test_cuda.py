"""Recovery from CUDA errors."""

from __future__ import annotations

import asyncio
import sys
import time
import types
import unittest
import weakref
from typing import Any, Callable

import plimsoll
from cases import ServiceCase
from plimsoll import StickyCudaError, classify

OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.06 GiB is free."
)
HINT = "\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"


class OutOfMemoryError(RuntimeError):
    """As torch.cuda.OutOfMemoryError."""


def failing(*errors: Any) -> tuple[Callable[..., str], list[int]]:
    """A function that fails in these ways, one after the other, and then works."""
    left, calls = list(errors), [0]

    def infer(*_: object) -> str:
        calls[0] += 1
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return "gpu"

    return infer, calls


class Errors(unittest.TestCase):
    def test_kinds(self) -> None:
        memory = [
            OutOfMemoryError(OOM),
            RuntimeError("CUDA error: out of memory" + HINT),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes."),
            RuntimeError(
                "bfc_arena.cc:376 BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"
            ),
        ]
        sticky = [
            RuntimeError("CUDA error: an illegal memory access was encountered" + HINT),
            RuntimeError("CUDA error: device-side assert triggered" + HINT),
            RuntimeError("CUDA error: unspecified launch failure" + HINT),
            RuntimeError("CUDA error: uncorrectable ECC error encountered"),
            RuntimeError("CUDA failure 700: an illegal memory access was encountered ; cudaErrorIllegalAddress"),
        ]
        neither = [
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            RuntimeError("CUDA error: invalid argument" + HINT),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            ValueError(OOM),
            MemoryError(),
            KeyboardInterrupt(),
        ]
        self.assertEqual([classify(error) for error in memory], ["memory"] * len(memory))
        self.assertEqual([classify(error) for error in sticky], ["sticky"] * len(sticky))
        self.assertEqual([classify(error) for error in neither], [None] * len(neither))


class Recovery(ServiceCase):
    def test_it_cleans_up_tells_and_tries_once_more(self) -> None:
        client, cleaned = self.client(), []
        client.on_trim(levels=["gc"])(lambda request: cleaned.append(request.reason))
        infer, calls = failing(OutOfMemoryError(OOM))
        guard = client.cuda_guard(device="GPU-1")
        self.assertEqual(guard(infer)(), "gpu")
        self.assertEqual((calls, guard.strikes, cleaned), ([2], 0, ["a CUDA call lacked memory"]))
        told = self.service.wait("ReportCudaError")
        assert told is not None
        self.assertEqual(
            (told["device"], told["outOfMemory"], told["sticky"], told["strikes"]), ("GPU-1", True, False, 1)
        )

    def test_it_waits_where_somebody_is_being_asked_for_memory(self) -> None:
        self.service.answers["ReportCudaError"] = lambda _: {"advice": "wait", "waitMilliseconds": 150}
        infer, _ = failing(OutOfMemoryError(OOM))
        begun = time.monotonic()
        self.assertEqual(self.client().cuda_guard().run(infer), "gpu")
        self.assertGreater(time.monotonic() - begun, 0.15)

    def test_it_waits_no_longer_than_until_there_is_room(self) -> None:
        looks: list[int] = []

        def free(index: int) -> tuple[int, int]:
            looks.append(index)
            return (2 << 30 if len(looks) >= 3 else 1 << 30), 80 << 30

        double = types.ModuleType("torch")
        double.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
            is_available=lambda: False, mem_get_info=free
        )
        before = sys.modules.get("torch")
        self.addCleanup(lambda: sys.modules.update(torch=before) if before else sys.modules.pop("torch"))
        sys.modules["torch"] = double
        self.service.answers["ReportCudaError"] = lambda _: {"advice": "wait", "waitMilliseconds": 30_000}
        infer, _ = failing(OutOfMemoryError(OOM))
        self.assertEqual(self.client().cuda_guard(patience=30).run(infer), "gpu")
        self.assertEqual(looks, [0, 0, 0], "it waits while there is less than what was wanted, and not after that")

    def test_who_is_being_made_room_for_is_not_given_up(self) -> None:
        self.service.answers["ReportCudaError"] = lambda _: {"advice": "wait", "waitMilliseconds": 0}
        infer, _ = failing(*[OutOfMemoryError(OOM)] * 4)
        guard = self.client().cuda_guard(fallback=lambda: "cpu")
        self.assertEqual([guard.run(infer) for _ in range(3)], ["cpu", "cpu", "gpu"])
        self.assertFalse(guard.fell_back)

    def test_after_three_in_a_row_it_stays_on_the_cpu(self) -> None:
        guard = plimsoll.Plimsoll("none").cuda_guard(fallback=lambda *_: "cpu")
        infer, calls = failing(*[OutOfMemoryError(OOM)] * 3)
        self.assertEqual([guard.run(infer), guard.fell_back], ["cpu", False], "both tries failed, for this call only")
        self.assertEqual([guard.run(infer), guard.fell_back, calls[0]], ["cpu", True, 3])
        self.assertEqual([guard.run(infer), calls[0]], ["cpu", 3], "the GPU is not tried any more")
        guard.reset()
        self.assertEqual(guard.run(infer), "gpu")

    def test_a_success_starts_the_count_anew(self) -> None:
        guard = plimsoll.Plimsoll("none").cuda_guard()
        infer, _ = failing(*[OutOfMemoryError(OOM), None] * 5)
        self.assertEqual([guard.run(infer) for _ in range(5)], ["gpu"] * 5)
        self.assertEqual((guard.strikes, guard.fell_back), (0, False))

    def test_without_a_fallback_the_function_looks_at_the_flag(self) -> None:
        fell = []
        guard = plimsoll.Plimsoll("none").cuda_guard(strikes=2, on_fallback=lambda: fell.append(1))

        @guard
        def infer() -> str:
            if guard.fell_back:
                return "cpu"
            raise OutOfMemoryError(OOM)

        self.assertEqual([infer(), infer(), fell], ["cpu", "cpu", [1]])
        with self.assertRaises(OutOfMemoryError):
            plimsoll.Plimsoll("none").cuda_guard().run(failing(*[OutOfMemoryError(OOM)] * 2)[0])

    def test_a_sticky_error_is_not_recovered(self) -> None:
        client = self.client()
        lost: list[BaseException] = []
        guard = client.cuda_guard(on_sticky=lost.append, fallback=lambda: "cpu")
        infer, calls = failing(RuntimeError("CUDA error: an illegal memory access was encountered" + HINT))
        for _ in range(3):
            with self.assertRaisesRegex(StickyCudaError, "illegal memory access"):
                guard.run(infer)
        with self.assertRaises(StickyCudaError), guard:
            self.fail("it went in")
        self.assertEqual((calls, len(lost)), ([1], 1), "never tried again, told once")
        told = self.service.wait("ReportCudaError")
        assert told is not None
        self.assertEqual((told["outOfMemory"], told["sticky"]), (False, True))

    def test_other_errors_pass_and_count_for_nothing(self) -> None:
        guard = plimsoll.Plimsoll("none").cuda_guard()
        infer, calls = failing(ValueError("no such token"))
        with self.assertRaises(ValueError):
            guard.run(infer)
        self.assertEqual((calls, guard.strikes), ([1], 0))

    def test_what_the_failed_call_held_is_gone_before_the_second(self) -> None:
        class Tensor:
            pass

        seen: list[Any] = []

        def infer() -> str:
            activations = Tensor()
            seen.append(weakref.ref(activations))
            if len(seen) == 1:
                raise OutOfMemoryError(OOM)
            return "alive" if seen[0]() is not None else "gone"

        self.assertEqual(plimsoll.Plimsoll("none").cuda_guard().run(infer), "gone")

    def test_a_context_counts_and_passes_on(self) -> None:
        guard = plimsoll.Plimsoll("none").cuda_guard()
        with self.assertRaises(OutOfMemoryError), guard:
            raise OutOfMemoryError(OOM)
        self.assertEqual(guard.strikes, 1)
        with guard:
            pass
        self.assertEqual(guard.strikes, 0)

    def test_coroutines(self) -> None:
        guard = plimsoll.Plimsoll("none").cuda_guard(fallback=lambda: "cpu", strikes=2)
        infer, _ = failing(*[OutOfMemoryError(OOM)] * 3)

        @guard
        async def task() -> str:
            return infer()

        self.assertEqual([asyncio.run(task()), asyncio.run(task())], ["cpu", "cpu"])


if __name__ == "__main__":
    unittest.main()
