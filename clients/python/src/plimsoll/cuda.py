"""Recovery from CUDA errors: clean up, try once more, and after too many in a row go on without the GPU.

Only a lack of memory can be recovered from. Most other CUDA errors destroy the context: whatever the process does next
fails as well, sometimes with wrong results, so nothing is tried again and the process has to be replaced.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, TypeVar, cast

from .errors import StickyCudaError
from .request import Request
from .wire import once

if TYPE_CHECKING:
    from .base import Base

log = logging.getLogger("plimsoll")

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["memory", "sticky"]

#: What frameworks say when a device has no memory left: PyTorch, cuBLAS, cuDNN, the CUDA and HIP runtimes,
#: onnxruntime, JAX.
_MEMORY = re.compile(
    r"(cuda|hip|gpu|device|cublas|cudnn).{0,80}out of memory|out of memory.{0,80}(cuda|hip|gpu|device)"
    r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_\w*DEVICE_ALLOCATION_FAILED"
    r"|BFCArena.*failed to allocate memory|RESOURCE_EXHAUSTED",
    re.IGNORECASE | re.DOTALL,
)
#: Errors after which the context is lost (CUDA driver API, CUresult 214, 220, 700, 702, 709, 710, 714 to 719, 999).
_STICKY = re.compile(
    r"illegal memory access|device-side assert triggered|unspecified launch failure|launch timed out"
    r"|illegal instruction|misaligned address|invalid program counter"
    r"|operation not supported on global/shared address space"
    r"|hardware stack error|uncorrectable (ECC|NVLink) error|context is destroyed|CUDA error: unknown error"
    r"|cudaError(IllegalAddress|Assert|LaunchFailure|LaunchTimeout|IllegalInstruction|MisalignedAddress|InvalidPc"
    r"|InvalidAddressSpace|HardwareStackError|ECCUncorrectable|NvlinkUncorrectable|ContextIsDestroyed)"
    r"|CUDA_ERROR_(ILLEGAL_ADDRESS|ASSERT|LAUNCH_FAILED|LAUNCH_TIMEOUT|ILLEGAL_INSTRUCTION|MISALIGNED_ADDRESS|INVALID_PC"
    r"|INVALID_ADDRESS_SPACE|HARDWARE_STACK_ERROR|ECC_UNCORRECTABLE|CONTEXT_IS_DESTROYED)",
    re.IGNORECASE,
)
#: PyTorch names the device by its number in messages about memory.
_DEVICE = re.compile(r"\bGPU (\d+) has a total capacity")
#: And what was wanted.
_WANTED = re.compile(r"\bTried to allocate ([0-9.]+) (bytes|KiB|MiB|GiB|TiB)")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
#: How often it is looked whether room has come.
_LOOK_SECONDS = 0.25


def classify(error: BaseException) -> Optional[Kind]:
    """``memory`` where a device had none left, ``sticky`` where the CUDA context is lost, None for all other errors."""
    if not isinstance(error, Exception) or isinstance(error, StickyCudaError):
        return None
    kinds = type(error).__mro__
    if any(k.__name__ == "OutOfMemoryError" and k.__module__ != "builtins" for k in kinds):
        return "memory"
    if not isinstance(error, RuntimeError) and not any(k.__module__.startswith("onnxruntime") for k in kinds):
        return None
    text = str(error)
    if _STICKY.search(text):
        return "sticky"
    return "memory" if _MEMORY.search(text) else None


class CudaGuard:
    """A decorator for what runs on a GPU; also `run`, and a context for what can't be run again.

    - Out of memory: cleans up (the exception's frames, Python's garbage, the allocator's cache, the ``gc``
      callbacks), tells the controller, waits if it says so, and tries once more.
    - ``strikes`` such errors in a row, across calls: ``fallback`` is called with the same arguments from then on, and
      ``fell_back`` is True, unless the controller says to wait, which it does not for ever. Any success before that
      starts the count anew. A call that can't be saved uses ``fallback`` for itself alone.
    - A sticky error: nothing is tried again. ``on_sticky`` is called, StickyCudaError is raised, and every later call
      raises it without touching the GPU.
    """

    def __init__(
        self,
        client: Base,
        *,
        fallback: Optional[Callable[..., Any]] = None,
        strikes: int = 3,
        retry: bool = True,
        patience: float = 15.0,
        device: Optional[str] = None,
        clean_up: Optional[Callable[[], object]] = None,
        on_fallback: Optional[Callable[[], object]] = None,
        on_sticky: Optional[Callable[[BaseException], object]] = None,
    ) -> None:
        """``patience``: seconds to wait at most when the controller is making room; where PyTorch's message says how
        much was wanted, only until that is free. ``device``: the GPU's id, where known.
        ``clean_up``: called besides what is always done."""
        if strikes < 1:
            raise ValueError("at least one strike")
        self._client = client
        self._fallback = fallback
        self._most = strikes
        self._retry = retry
        self._patience = patience
        self._device = device
        self._clean_up = clean_up
        self._on_fallback = on_fallback
        self._on_sticky = on_sticky
        self._lock = threading.Lock()
        self._strikes = 0
        #: The error that destroyed the context.
        self.lost: Optional[str] = None
        #: The GPU is not used any more.
        self.fell_back = False

    @property
    def strikes(self) -> int:
        """Errors in a row."""
        return self._strikes

    def reset(self) -> None:
        """The GPU may be used again, for instance after a restore. A lost context stays lost."""
        with self._lock:
            self._strikes, self.fell_back = 0, False

    def __call__(self, function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def guarded_task(*args: Any, **kwargs: Any) -> Any:
                return await self.run_async(function, *args, **kwargs)

            return cast(F, guarded_task)

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return self.run(function, *args, **kwargs)

        return cast(F, guarded)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function under the guard."""
        attempt = _Attempt(self)
        while attempt.on_gpu:
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                attempt.failed(error)
            else:
                self._succeeded()
                return result
            # Outside of the except block: the exception's frames hold the tensors that have to go.
            attempt.settle(time.sleep)
        if self._fallback is None:
            return function(*args, **kwargs)
        return self._fallback(*args, **kwargs)

    async def run_async(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The same for a coroutine function. Cleaning up and waiting don't block the loop."""
        attempt = _Attempt(self)
        loop = asyncio.get_running_loop()
        while attempt.on_gpu:
            try:
                result = await function(*args, **kwargs)
            except Exception as error:
                attempt.failed(error)
            else:
                self._succeeded()
                return result
            await loop.run_in_executor(None, attempt.settle, time.sleep)
        if self._fallback is None:
            return await function(*args, **kwargs)
        answer = self._fallback(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    def __enter__(self) -> CudaGuard:
        """For what can't be run again: cleans up and counts, and the error goes on."""
        self._raise_if_lost(None)
        return self

    def __exit__(self, _: object, error: Optional[BaseException], __: object) -> None:
        kind = classify(error) if error is not None else None
        if error is None:
            self._succeeded()
        elif kind == "sticky":
            self._lose(error)
        elif kind == "memory":
            self._strike()
            self._fall(self._report(error, sticky=False)[0])
            self._clean()

    def _succeeded(self) -> None:
        if self._strikes:
            with self._lock:
                if not self.fell_back:
                    self._strikes = 0

    def _strike(self) -> None:
        with self._lock:
            self._strikes += 1

    def _fall(self, advice: str) -> None:
        with self._lock:
            # Who is being made room for has not failed for good: an offload takes its time.
            fell = self._strikes >= self._most and not self.fell_back and advice != "wait"
            self.fell_back = self.fell_back or fell
        if fell:
            log.warning("the GPU is given up", extra={"strikes": self._strikes})
            _call(self._on_fallback)

    def _lose(self, error: BaseException) -> None:
        first = self.lost is None
        self.lost = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if first:
            log.error("the CUDA context is lost, this process has to be replaced", extra={"error": self.lost})
            self._report(error, sticky=True)
            if self._on_sticky is not None:
                _call(functools.partial(self._on_sticky, error))
        self._raise_if_lost(error)

    def _raise_if_lost(self, cause: Optional[BaseException]) -> None:
        if self.lost is not None:
            raise StickyCudaError(self.lost) from cause

    def _report(self, error: BaseException, *, sticky: bool) -> tuple[str, float]:
        """Tells the controller, which has no other way to know; returns its advice, and how long to wait in seconds."""
        parameters = {
            "device": self._device or device_id(error),
            "error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:200],
            "outOfMemory": not sticky,
            "sticky": sticky,
            "strikes": max(1, self._strikes),
        }
        try:
            answer = once(self._client._path, "ReportCudaError", parameters)
        except Exception as refused:
            log.debug("the error could not be reported", extra={"error": str(refused)})
            answer = None
        if answer is None:
            return "retry", 0.0
        wait = answer.get("waitMilliseconds", self._patience * 1000) / 1000
        return str(answer.get("advice", "retry")), min(self._patience, float(wait))

    def _clean(self) -> None:
        for entry in self._client._registry.asked("gc"):
            if not inspect.iscoroutinefunction(entry.callback):
                _call(functools.partial(entry.callback, Request(-1, "gc", reason="a CUDA call lacked memory")))
        _call(self._clean_up)
        empty_caches()


class _Attempt:
    """One call, tried at most twice."""

    def __init__(self, guard: CudaGuard) -> None:
        guard._raise_if_lost(None)
        self._guard = guard
        self._tries = 0
        self._failure: Optional[Exception] = None
        self.on_gpu = not guard.fell_back

    def failed(self, error: Exception) -> None:
        """Keeps an error that can be recovered from, and raises every other."""
        kind = classify(error)
        if kind == "sticky":
            self._guard._lose(error)
        if kind != "memory":
            raise error
        self._tries += 1
        self._failure = error

    def settle(self, sleep: Callable[[float], None]) -> None:
        """Cleans up; then it is tried again, or without the GPU, or the error is raised."""
        guard, error = self._guard, self._failure
        self._failure = None
        assert error is not None
        guard._strike()
        advice, wait = guard._report(error, sticky=False)
        guard._fall(advice)
        there = room_for(error)
        again = guard._retry and self._tries == 1 and not guard.fell_back and advice != "fallback"
        self.on_gpu = again
        saved = again or guard.fell_back or guard._fallback is not None
        if saved:
            # Its frames hold the tensors of the call that failed. They are not cleared: one may be a coroutine that
            # waits.
            error.__traceback__ = None
        guard._clean()
        if not saved:
            raise error
        if again and advice == "wait":
            end = time.monotonic() + wait
            while time.monotonic() < end and not there():
                sleep(min(_LOOK_SECONDS, max(0.0, end - time.monotonic())))


def empty_caches() -> None:
    """Returns what PyTorch's allocators keep, where it is loaded: it is not loaded for this."""
    gc.collect()
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_available() and cuda.is_initialized():
        cuda.empty_cache()
        cuda.ipc_collect()


def room_for(error: BaseException) -> Callable[[], bool]:
    """A question whether what PyTorch was refused is free by now; what can't be known is answered with no."""
    wanted, device = _WANTED.search(str(error)), _DEVICE.search(str(error))
    if not wanted or not device:
        return lambda: False
    size, index = int(float(wanted.group(1)) * _UNITS[wanted.group(2)]), int(device.group(1))

    def there() -> bool:
        try:
            torch = cast(Any, sys.modules["torch"])
            return int(torch.cuda.mem_get_info(index)[0]) >= size
        except Exception:
            return False

    return there


def device_id(error: BaseException) -> Optional[str]:
    """The id of the GPU that a message of PyTorch names."""
    found = _DEVICE.search(str(error))
    return gpu_id(int(found.group(1))) if found else None


def gpu_id(index: int) -> Optional[str]:
    """The id by which the controller knows the GPU that PyTorch numbers so: ``GPU-`` and its UUID. None where PyTorch
    does not tell."""
    torch = sys.modules.get("torch")
    try:
        uuid = str(cast(Any, torch).cuda.get_device_properties(index).uuid)
    except Exception:
        return None
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _call(function: Optional[Callable[[], object]]) -> None:
    """What goes wrong while cleaning up must not hide what it is cleaned up for."""
    if function is None:
        return
    try:
        function()
    except Exception:
        log.warning("a callback failed", exc_info=True)
