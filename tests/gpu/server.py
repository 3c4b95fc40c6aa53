"""A model server on a real GPU, which does what the lines on its input say, and tells what happens to it.

Its model is a list of matrices of 1 GiB. Every request multiplies a vector with one of them and knows what has to come
out, so that weights which moved to the host and back are known to be the same.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients/python/src"))

import torch

import plimsoll
import plimsoll.torch

GIB = 1 << 30
#: Half precision: a matrix of 1 GiB.
SIDE = (16384, 32768)
#: Time between requests.
PAUSE = 0.05


def tell(what: str, **facts: Any) -> None:
    """One line of JSON."""
    os.write(1, json.dumps({"what": what, "at": time.monotonic(), **facts}).encode() + b"\n")


class Model(torch.nn.Module):
    """Matrices that are full of their own number."""

    def __init__(self, gib: int) -> None:
        super().__init__()
        one = [torch.full(SIDE, 1 + n % 7, dtype=torch.float16, device="cuda") for n in range(gib)]
        self.layers = torch.nn.ParameterList([torch.nn.Parameter(layer, requires_grad=False) for layer in one])

    def forward(self, number: int) -> bool:
        """Whether the answer is the right one."""
        layer = self.layers[number % len(self.layers)]
        # Small enough to be exact in half precision.
        vector = torch.zeros(SIDE[1], dtype=torch.float16, device=layer.device)
        vector[:64] = 1
        answer = layer @ vector
        return bool((answer == 64 * (1 + number % len(self.layers) % 7)).all())


class Server:
    """A model, requests to it, and a cache of keys and values that grows with them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.client = plimsoll.Plimsoll()
        self.guard = self.client.cuda_guard() if arguments.guard else None
        self.cache: list[torch.Tensor] = []
        self.answers, self.wrong, self.slowest, self.last = 0, 0, 0.0, ""
        self.managed: Any = None
        if arguments.managed:
            self.managed = plimsoll.torch.manage(
                self.client, load=lambda: Model(arguments.gib), smoke=lambda model: self.check(model(0))
            )
            self.client.on_tier(lambda resource, old, new: tell("tier", resource=resource, old=old, new=new))
        else:
            self.model = Model(arguments.gib)
        self.gpu = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        threading.Thread(target=self.serve, daemon=True).start()

    @staticmethod
    def check(right: bool) -> None:
        """A smoke test raises where the model does not answer."""
        if not right:
            raise RuntimeError("a wrong answer")

    def infer(self, number: int) -> bool:
        """One request."""
        if self.managed is None:
            return bool(self.model(number))
        with self.managed as model:
            return bool(model(number))

    def serve(self) -> None:
        """Requests, one after the other, for as long as the process lives."""
        for number in self.numbers():
            start = time.monotonic()
            try:
                right = self.infer(number)
            except Exception as error:
                self.last = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                self.wrong += 1
                continue
            self.answers += 1
            self.wrong += not right
            self.slowest = max(self.slowest, time.monotonic() - start)

    @staticmethod
    def numbers() -> Iterator[int]:
        """One more every time, with a pause."""
        number = 0
        while True:
            yield number
            number += 1
            time.sleep(PAUSE)

    def take(self, gib: float) -> torch.Tensor:
        """A block of the GPU's memory."""
        return torch.zeros(int(gib * GIB), dtype=torch.uint8, device="cuda")

    def grow(self, gib: str) -> None:
        """The cache wants a block more."""
        start = time.monotonic()
        try:
            block = self.guard.run(self.take, float(gib)) if self.guard else self.take(float(gib))
        except Exception as error:
            text = str(error).splitlines()[0]
            return tell("refused", error=f"{type(error).__name__}: {text}"[:300], took=time.monotonic() - start)
        self.cache.append(block)
        del block
        return tell("grown", gib=sum(one.numel() for one in self.cache) / GIB, took=time.monotonic() - start)

    def shrink(self, _: str) -> None:
        """The cache is given up."""
        self.cache.clear()
        plimsoll.torch.empty()
        tell("shrunk")

    def litter(self, gib: str) -> None:
        """Blocks that were used once, and that PyTorch keeps."""
        blocks = [self.take(1) for _ in range(int(gib))]
        del blocks
        gc.collect()
        tell("littered", reserved=torch.cuda.memory_reserved() / GIB)

    def reserve(self, gib: str) -> None:
        """Room for a model, if there is any."""
        try:
            room = self.client.reserve(1 << 20, gpus={"any": int(gib) * GIB}, wait=0)
        except plimsoll.NoRoom as no:
            return tell("no room", reason=no.reason, retry=no.retry_after)
        with room:
            block = self.take(float(gib))
            self.cache.append(block)
        return tell("room", controlled=room.controlled)

    def report(self, _: str) -> None:
        """How the requests went since the last time."""
        tell(
            "report",
            answers=self.answers,
            wrong=self.wrong,
            slowest=self.slowest,
            last=self.last,
            reserved=torch.cuda.memory_reserved() / GIB,
        )
        self.answers, self.wrong, self.slowest, self.last = 0, 0, 0.0, ""

    def fault(self, _: str) -> None:
        """A kernel that asserts: it destroys the context."""
        assert self.guard is not None, "start it with --guard"

        def assertion() -> None:
            index = torch.tensor([1 << 20], device="cuda")
            torch.zeros(4, device="cuda")[index].sum().item()

        try:
            self.guard.run(assertion)
        except plimsoll.StickyCudaError as error:
            return tell("sticky", error=str(error))
        return tell("not sticky")


def main() -> None:
    """One method for each line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=int, default=0)
    parser.add_argument("--managed", action="store_true")
    parser.add_argument("--guard", action="store_true")
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(message)s")
    server = Server(parser.parse_args())
    tell("ready", gpu=server.gpu, pid=os.getpid())
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        getattr(server, command)(rest)


if __name__ == "__main__":
    main()
