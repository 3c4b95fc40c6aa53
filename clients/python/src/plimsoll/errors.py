"""What can go wrong, in words that a server can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional


class PlimsollError(Exception):
    """The root of all errors that this package raises."""


class ControlError(PlimsollError):
    """The controller answered with an error: its full name and its parameters."""

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self.parameters = dict(parameters)
        words = parameters.get("message") or ", ".join(f"{key} {value}" for key, value in parameters.items())
        super().__init__(f"{name.rpartition('.')[2]}: {words}" if words else name.rpartition(".")[2])


class NoRoom(PlimsollError):
    """A reservation was refused.

    ``reason`` is one of the interface's words (``no_room``, ``behind``, ``tier``, ``too_large``, ...), ``retry_after``
    the seconds after which it is worth to ask again (None: never), ``admissible`` the most bytes of host memory that
    would be granted now, and ``tier`` how short memory is.
    """

    def __init__(self, message: str, *, reason: str, retry_after: Optional[float], admissible: int, tier: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after
        self.admissible = admissible
        self.tier = tier


class Unloaded(PlimsollError):
    """The model is not there at the moment; a server answers 503 with ``Retry-After: retry_after`` (seconds)."""

    def __init__(self, level: str, retry_after: float) -> None:
        super().__init__(f"the model is given up ({level}) while memory is short; try again in {retry_after:g} s")
        self.level = level
        self.retry_after = retry_after


class Refuse(PlimsollError):
    """Raised by a callback that won't do what it is asked; the controller then turns to somebody else."""


class StickyCudaError(PlimsollError):
    """A CUDA error that destroyed the context. No later CUDA call of this process can succeed: restart it."""
