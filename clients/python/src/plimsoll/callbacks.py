"""Who wants to be told and asked: callbacks by kind, in order of priority and registration."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Literal, Optional

from .request import Answer, Callback, Freed, Level

#: What of the levels a program can be asked for, gentlest first.
OFFERED: tuple[Level, ...] = ("gc", "aggressive", "offload", "unload")
#: Kinds of notices that ask for nothing.
NoticeKind = Literal["tier", "thrash", "shutdown"]


@dataclass(frozen=True)
class Registered:
    """A callback for requests, with what it says about itself."""

    callback: Callback
    levels: tuple[Level, ...]
    gains: Optional[Freed] = None
    takes: Optional[float] = None
    priority: int = 0
    exclusive: bool = False
    serves: bool = False


@dataclass(frozen=True)
class Listener:
    """A callback for notices."""

    callback: Callable[..., object]
    kind: NoticeKind
    priority: int = 0


class Registry:
    """Callbacks, each at most once for what it is for: registering one again replaces what was said about it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._changed = changed
        self._asked: list[Registered] = []
        self._told: list[Listener] = []

    def after_fork(self) -> None:
        """Another thread may have held the lock."""
        self._lock = threading.Lock()

    def ask(self, entry: Registered) -> None:
        """Adds a callback for requests."""
        with self._lock:
            same = [e for e in self._asked if e.callback == entry.callback and set(e.levels) & set(entry.levels)]
            self._asked = _placed(self._asked, entry, same)
        self._changed()

    def tell(self, entry: Listener) -> None:
        """Adds a callback for notices."""
        with self._lock:
            same = [e for e in self._told if e.callback == entry.callback and e.kind == entry.kind]
            self._told = _placed(self._told, entry, same)
        self._changed()

    def remove(self, callback: Callable[..., Any]) -> bool:
        """Takes a callback out of everything it was registered for."""
        with self._lock:
            before = len(self._asked) + len(self._told)
            self._asked = [entry for entry in self._asked if entry.callback != callback]
            self._told = [entry for entry in self._told if entry.callback != callback]
            removed = before > len(self._asked) + len(self._told)
        if removed:
            self._changed()
        return removed

    def asked(self, level: Level) -> list[Registered]:
        """Callbacks for a level."""
        with self._lock:
            return [entry for entry in self._asked if level in entry.levels]

    def told(self, kind: NoticeKind) -> list[Callable[..., object]]:
        """Callbacks for a kind of notice."""
        with self._lock:
            return [entry.callback for entry in self._told if entry.kind == kind]

    def empty(self) -> bool:
        """Whether nobody is there to tell or ask."""
        with self._lock:
            return not self._asked and not self._told

    def offers(self) -> list[dict[str, Any]]:
        """As the interface's ``Offered``: each level that somebody answers to, with the sums of what is known."""
        return [_offered(level, entries) for level in OFFERED if (entries := self.asked(level))]


def _placed(entries: Sequence[Any], entry: Any, same: Sequence[Any]) -> list[Any]:
    """A callback that is there keeps its place; sorting is stable, so the order of registration decides among
    equals."""
    if same:
        position = entries.index(same[0])
        kept = [e for e in entries if e not in same]
        kept.insert(position, entry)
    else:
        kept = [*entries, entry]
    return sorted(kept, key=lambda e: -int(e.priority))


def _offered(level: Level, entries: Iterable[Registered]) -> dict[str, Any]:
    entries = list(entries)
    offer: dict[str, Any] = {"level": level}
    known = [entry.gains for entry in entries if entry.gains is not None]
    if known:
        offer["gains"] = sum(known, Freed()).parameters()
    if all(entry.takes is not None for entry in entries):
        offer["takesMilliseconds"] = round(sum(entry.takes or 0.0 for entry in entries) * 1000)
    return offer


__all__ = ["OFFERED", "Answer", "Listener", "NoticeKind", "Registered", "Registry"]
