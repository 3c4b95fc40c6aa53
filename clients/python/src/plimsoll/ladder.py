"""Smaller settings that a program offers: taken in the order given while memory is short, taken back in reverse."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from .errors import Refuse
from .request import Answer, Freed, Request

log = logging.getLogger("plimsoll")

T = TypeVar("T")
#: How long all has to be well again before a step is taken back without being asked.
CALM_SECONDS = 30.0


@dataclass(frozen=True)
class Step:
    """One step: ``down`` makes it smaller and may return the bytes that this frees, ``up`` undoes it."""

    down: Callable[[], Answer]
    up: Callable[[], object]
    gains: Union[int, Freed, None] = None
    name: str = ""


class Setting(Generic[T]):
    """A value that a program reads whenever it needs it, such as a batch size, with smaller ones behind it."""

    def __init__(self, *values: T, name: str = "", gains: Union[int, Freed, None] = None) -> None:
        """``values``: the wanted one first. ``gains``: what each step frees."""
        if len(values) < 2:
            raise ValueError("a setting has at least two values")
        self._values = values
        self._at = 0
        self._name = name
        self._gains = gains

    @property
    def value(self) -> T:
        """What is to be used now."""
        return self._values[self._at]

    def steps(self) -> list[Step]:
        """One step for each smaller value."""
        return [
            Step(self._move(at), self._move(at - 1), self._gains, f"{self._name} {value}".strip())
            for at, value in enumerate(self._values)
            if at > 0
        ]

    def _move(self, at: int) -> Callable[[], None]:
        def move() -> None:
            self._at = at

        return move


class StepDown:
    """A ladder of steps. Goes down by requests, and up by a restore or when all is well again, one step at a time."""

    def __init__(self, steps: Sequence[Union[Step, tuple[Any, Any]]], *, calm: float = CALM_SECONDS) -> None:
        self._steps = [step if isinstance(step, Step) else Step(*step) for step in steps]
        self._calm = calm
        self._lock = threading.RLock()
        self._short: set[str] = set()
        self._tiers: dict[str, str] = {}
        self._timer: Optional[threading.Timer] = None
        #: How many steps were taken.
        self.taken = 0

    @property
    def gains(self) -> Optional[Freed]:
        """What all steps together free, where each says so."""
        known = [Freed.from_answer(step.gains) for step in self._steps]
        return sum((gain for gain in known if gain), Freed()) if all(known) else None

    def down(self, request: Request) -> Optional[Freed]:
        """Takes steps until what is wanted has come back, one at least."""
        with self._lock:
            if self.taken == len(self._steps):
                raise Refuse(f"all {self.taken} steps were taken already")
            self._short.update(request.resources)
            freed: Optional[Freed] = None
            while self.taken < len(self._steps) and not request.withdrawn and not request.met(freed or Freed()):
                step = self._steps[self.taken]
                answer = step.down()
                self.taken += 1
                came = Freed.from_answer(answer if answer is not None else step.gains)
                freed = freed if came is None else came + (freed or Freed())
                if request.bytes == 0:
                    break
            return freed

    def up(self, request: Optional[Request] = None) -> None:
        """Takes all steps back."""
        with self._lock:
            while self.taken:
                self._one_up()

    def tier(self, resource: str, old: str, new: str) -> None:
        """For tier notices: when what was short is well again for a while, steps are taken back."""
        with self._lock:
            self._tiers[resource] = new
            self._watch()

    def _watch(self) -> None:
        well = all(self._tiers.get(resource, "normal") == "normal" for resource in self._short)
        if self._timer is not None and (not well or not self.taken):
            self._timer.cancel()
            self._timer = None
        if self.taken and well and self._timer is None:
            self._timer = threading.Timer(self._calm, self._tick)
            self._timer.daemon = True
            self._timer.start()

    def _tick(self) -> None:
        with self._lock:
            self._timer = None
            try:
                if self.taken:
                    self._one_up()
            except Exception:
                log.exception("a step could not be taken back")
            self._watch()

    def _one_up(self) -> None:
        step = self._steps[self.taken - 1]
        step.up()
        self.taken -= 1
        if not self.taken:
            self._short.clear()
