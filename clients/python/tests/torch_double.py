"""As much of PyTorch as the hooks use, on a GPU that is counted in bytes.

It behaves as the real one does: the allocator keeps what was freed until ``empty_cache``, modules move parameter by
parameter and stay half moved where memory ends, and errors have PyTorch's types and words. No CUDA wheel is downloaded
for the tests; with a real PyTorch installed, test_torch.py runs against that as well, on the CPU.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any, Callable, Optional


class OutOfMemoryError(RuntimeError):
    """torch.cuda.OutOfMemoryError."""


class Device:
    """torch.device."""

    def __init__(self, name: Any) -> None:
        kind, _, index = str(name).partition(":")
        self.type = kind
        self.index = int(index) if index else (0 if kind == "cuda" else None)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


class Gpu:
    """The memory of one GPU as this process's allocator sees it."""

    def __init__(self) -> None:
        self.total = 1000
        self.allocated = 0
        self.reserved = 0

    def take(self, size: int) -> None:
        if max(self.reserved, self.allocated + size) > self.total:
            raise OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes. GPU 0 has a total capacity of")
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)


gpu = Gpu()
initialized = False
calls: list[str] = []


class Parameter:
    """A tensor of bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.device = Device("cpu")
        self._on_gpu = False

    def numel(self) -> int:
        return self._size

    def element_size(self) -> int:
        return 1

    def move(self, device: Device) -> None:
        global initialized
        if device.type == "cuda" and not self._on_gpu:
            initialized = True
            gpu.take(self._size)
        elif device.type == "cpu" and self._on_gpu:
            gpu.allocated -= self._size
        self._on_gpu, self.device = device.type == "cuda", device

    def __del__(self) -> None:
        if self._on_gpu:
            gpu.allocated -= self._size


class Module:
    """torch.nn.Module."""

    def __init__(self, *sizes: int) -> None:
        self._parameters = [Parameter(size) for size in sizes]

    def parameters(self) -> Iterator[Parameter]:
        return iter(self._parameters)

    def buffers(self) -> Iterator[Parameter]:
        return iter(())

    def to(self, device: Any) -> Module:
        for parameter in self._parameters:
            parameter.move(device if isinstance(device, Device) else Device(device))
        return self

    def __call__(self, value: int) -> tuple[int, str]:
        places = {str(parameter.device) for parameter in self._parameters}
        if len(places) > 1:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices")
        return value + 1, places.pop()


def _empty_cache() -> None:
    calls.append("empty_cache")
    gpu.reserved = gpu.allocated


def _named(name: str) -> Callable[..., None]:
    return lambda *_: calls.append(name)


def install() -> Optional[types.ModuleType]:
    """Puts it where PyTorch would be; returns what was there."""
    global initialized
    before = sys.modules.get("torch")
    torch: Any = types.ModuleType("torch")
    torch.device = Device
    torch.nn = types.SimpleNamespace(Module=Module)
    torch._C = types.SimpleNamespace(_cuda_clearCublasWorkspaces=_named("cublas"))
    torch.cuda = types.SimpleNamespace(
        OutOfMemoryError=OutOfMemoryError,
        is_available=lambda: True,
        is_initialized=lambda: initialized,
        device_count=lambda: 1,
        memory_reserved=lambda index: gpu.reserved,
        empty_cache=_empty_cache,
        ipc_collect=_named("ipc_collect"),
        synchronize=_named("synchronize"),
        get_device_properties=lambda index: types.SimpleNamespace(uuid="0123-abcd"),
    )
    sys.modules["torch"] = torch
    gpu.total, gpu.allocated, gpu.reserved, initialized = 1000, 0, 0, False
    calls.clear()
    return before
