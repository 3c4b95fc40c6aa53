"""Ready-made hooks for PyTorch: caches, models that move to the host and back, models that are dropped and loaded
again.

PyTorch itself is loaded with this module, and only with it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Callable, Generic, Optional, TypeVar, Union, cast

from .base import Base
from .cuda import gpu_id
from .errors import PlimsollError, Refuse
from .gate import Inflight, WhenClosed
from .meters import host_bytes, trim_malloc
from .request import Freed, Request

torch: Any = importlib.import_module("torch")
log = logging.getLogger("plimsoll")

M = TypeVar("M")

#: PyTorch gives blocks back that a finalizer of the round before set free.
ROUNDS = 3


class NotFreed(PlimsollError):
    """A model was dropped, and somebody else still holds it."""


def manage(
    client: Base,
    model: Optional[M] = None,
    *,
    load: Optional[Callable[[], M]] = None,
    device: Any = "cuda",
    home: Any = "cpu",
    smoke: Optional[Callable[[M], object]] = None,
    serves_offloaded: bool = False,
    gains: Union[int, Freed, None] = None,
    takes: Optional[float] = None,
    priority: int = 0,
) -> Managed[M]:
    """Puts a model into the controller's hands; returns the `Managed` by which it is to be used from now on.

    ``load`` makes the model, on any device; with it the model can be unloaded, and ``model`` may be left out.
    ``smoke`` is called with a restored model before requests are let in, and raises where it does not answer.
    ``gains`` are the bytes that an offload frees; by default those of its parameters and buffers on GPUs.
    """
    managed = Managed(model, load, device, home, smoke)
    client.on_trim(levels=("gc", "aggressive"), priority=priority)(trim)
    if managed.moves:
        client.on_offload(
            gains=gains if gains is not None else managed.offload_gains(),
            takes=takes,
            priority=priority,
            serves=serves_offloaded,
        )(managed.offload)
    if load is not None:
        client.on_unload(gains=gains if gains is not None else managed.unload_gains(), priority=priority)(
            managed.unload
        )
    client.on_restore(priority=priority)(managed.restore)
    managed._client = client
    return managed


class Managed(Generic[M]):
    """A model that may be on its device, at home on the host, or not there.

    ``with managed as model:`` is a request: meanwhile the model stays where it is, and while it is gone the request
    waits.
    Nothing else may hold the model for longer, or unloading it frees nothing.
    """

    def __init__(
        self,
        model: Optional[M],
        load: Optional[Callable[[], M]],
        device: Any,
        home: Any,
        smoke: Optional[Callable[[M], object]],
    ) -> None:
        if model is None and load is None:
            raise ValueError("a model, or a way to load it")
        self._load = load
        self._device = torch.device(device)
        self._home = torch.device(home)
        self._smoke = smoke
        self._client: Optional[Base] = None
        self._open = threading.local()
        # Not in a variable of this frame, which an exception of somebody else's may keep alive.
        self._model: Optional[M] = _to(model if model is not None else cast(Callable[[], M], load)(), self._device)

    @property
    def moves(self) -> bool:
        """Whether device and home are different places."""
        return str(self._device.type) != str(self._home.type)

    @property
    def model(self) -> M:
        """The model; not to be kept."""
        if self._model is None:
            raise PlimsollError("the model is unloaded")
        return self._model

    @property
    def loaded(self) -> bool:
        """Whether it is there, on whichever device."""
        return self._model is not None

    def use(self, when_closed: WhenClosed = "wait", timeout: Optional[float] = None) -> _Use[M]:
        """As ``with managed``, for threads and tasks, with the choices of `Plimsoll.inflight`."""
        return _Use(self, when_closed, timeout)

    def __enter__(self) -> M:
        uses: list[_Use[M]] = self._open.__dict__.setdefault("uses", [])
        uses.append(self.use())
        return uses[-1].__enter__()

    def __exit__(self, *error: object) -> None:
        self._open.uses.pop().__exit__(*error)

    def offload(self, request: Request) -> Optional[Freed]:
        """Moves it home. Where that fails it is moved back, whole."""
        if self._model is None:
            raise Refuse("the model is unloaded")
        return self._moved(self._device, self._home)

    def unload(self, request: Request) -> Freed:
        """Drops it. Where somebody else holds it nothing would come back: then it stays, and NotFreed is raised."""
        if self._model is None:
            return Freed()
        before = Meters()
        held, self._model = _watch(self._model), None
        empty()
        alive = held()
        if alive is not None:
            self._model = alive
            raise NotFreed("something else in this program still refers to the model")
        return before.freed()

    def restore(self, request: Request) -> None:
        """Loads it or moves it back, and tries it. Where that fails it is as it was before."""
        if self._model is not None:
            if self.moves:
                self._moved(self._home, self._device)
            if self._smoke is not None:
                self._smoke(self._model)
            return
        assert self._load is not None, "only what can be loaded is unloaded"
        model: Optional[M] = None
        try:
            model = _to(self._load(), self._device)
            if self._smoke is not None:
                self._smoke(cast(M, model))
        except Exception as error:
            log.debug("a model that was loaded again does not work", exc_info=True)
            failure = error
        else:
            self._model = model
            return
        # The frames of what failed hold the model.
        model, failure.__traceback__ = None, None
        empty()
        raise failure

    def _moved(self, source: Any, target: Any) -> Freed:
        before = Meters()
        try:
            _to(self._model, target)
        except BaseException:
            # Some of its parameters are here and some there: it would answer nothing.
            _to(self._model, source)
            empty()
            raise
        empty()
        return before.freed()

    def offload_gains(self) -> Optional[Freed]:
        """What moving it home would free: its bytes on GPUs, which the host has to take."""
        gpus = _gpu_bytes(self._model)
        return Freed(-sum(gpus.values()), gpus) if gpus else None

    def unload_gains(self) -> Optional[Freed]:
        """What dropping it would free."""
        gpus = _gpu_bytes(self._model)
        host = sum(_bytes(tensor) for tensor in _tensors(self._model) if tensor.device.type == "cpu")
        return Freed(host, gpus) if gpus or host else None


class _Use(Generic[M]):
    """One request that uses the model."""

    def __init__(self, managed: Managed[M], when_closed: WhenClosed, timeout: Optional[float]) -> None:
        assert managed._client is not None, "made by manage()"
        self._managed = managed
        self._inflight: Inflight = managed._client.inflight(when_closed, timeout)

    def __enter__(self) -> M:
        self._inflight.__enter__()
        return self._managed.model

    def __exit__(self, *error: object) -> None:
        self._inflight.__exit__(*error)

    async def __aenter__(self) -> M:
        await self._inflight.__aenter__()
        return self._managed.model

    async def __aexit__(self, *error: object) -> None:
        await self._inflight.__aexit__(*error)


def trim(request: Request) -> Freed:
    """For ``on_trim``: garbage and free blocks; at ``aggressive`` also the work spaces of cuBLAS and the plans of
    cuFFT."""
    before = Meters()
    if request.level == "aggressive" and _initialized():
        _call_if_there(torch, "_C", "_cuda_clearCublasWorkspaces")
        _call_if_there(torch, "backends", "cuda", "cufft_plan_cache", "clear")
        reserved = _reserved()
        for _ in range(ROUNDS):
            empty()
            reserved, last = _reserved(), reserved
            if reserved == last:
                break
    else:
        empty()
    return before.freed()


def empty() -> None:
    """Collects garbage and returns free memory: PyTorch's blocks to the driver, the C library's to the kernel."""
    gc.collect()
    if _initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()
    trim_malloc()


class Meters:
    """What this process has: of the host, and of each GPU as PyTorch's allocator reserved it."""

    def __init__(self) -> None:
        self._host = host_bytes()
        self._gpus = _reserved()

    def freed(self) -> Freed:
        """What it has less since."""
        now = Meters()
        host = 0 if self._host is None or now._host is None else self._host - now._host
        gpus = {gpu: bytes - now._gpus.get(gpu, 0) for gpu, bytes in self._gpus.items()}
        return Freed(host, {gpu: less for gpu, less in gpus.items() if less > 0})


def _initialized() -> bool:
    """A question that does not make a CUDA context: one takes hundreds of MB."""
    return bool(torch.cuda.is_available() and torch.cuda.is_initialized())


def _reserved() -> dict[str, int]:
    if not _initialized():
        return {}
    return {_id(index): int(torch.cuda.memory_reserved(index)) for index in range(torch.cuda.device_count())}


def _id(index: int) -> str:
    return gpu_id(index) or f"cuda:{index}"


def _to(model: Any, device: Any) -> Any:
    moved = model.to(device)
    if device.type == "cpu" and _initialized():
        torch.cuda.synchronize()
    return moved


def _watch(model: M) -> Callable[[], Optional[M]]:
    """Tells later whether it is still there. What can't be watched is taken for gone: the meters will tell."""
    try:
        return weakref.ref(model)
    except TypeError:
        return lambda: None


def _tensors(model: Any) -> Iterator[Any]:
    for kind in ("parameters", "buffers"):
        yield from getattr(model, kind, tuple)()


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _gpu_bytes(model: Any) -> dict[str, int]:
    gpus: dict[str, int] = {}
    for tensor in _tensors(model):
        if tensor.device.type == "cuda":
            gpu = _id(tensor.device.index or 0)
            gpus[gpu] = gpus.get(gpu, 0) + _bytes(tensor)
    return gpus


def _call_if_there(root: Any, *path: str) -> None:
    """Some of these exist in some versions of PyTorch only, and some raise when they are merely looked at."""
    try:
        functools.reduce(getattr, path, root)()
    except Exception:
        log.debug("a cache could not be cleared", extra={"cache": path[-1]}, exc_info=True)
