"""Who sends and reads: a thread, or an asyncio task. Each has turns of its own."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any, Protocol

from . import _core


class _Place(Protocol):
    def _forget(self, caller: int) -> None: ...


class Caller:
    """One of them. When it ends, the turns that it left open are closed."""

    __slots__ = ("id", "places")

    def __init__(self) -> None:
        self.id = _core.new_caller()
        self.places: weakref.WeakSet[Any] = weakref.WeakSet()

    def at(self, place: _Place) -> int:
        """Its number, for a place that it may leave a turn open at."""
        if place not in self.places:
            self.places.add(place)
        return self.id

    def close(self) -> None:
        for place in list(self.places):
            place._forget(self.id)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:
            pass  # the interpreter is ending


_thread = threading.local()
_tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], Caller] = weakref.WeakKeyDictionary()


def current() -> Caller:
    """The one that calls."""
    if asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
        if task is not None:
            caller = _tasks.get(task)
            if caller is None:
                caller = _tasks[task] = Caller()
            return caller
    try:
        caller = _thread.caller
    except AttributeError:
        caller = _thread.caller = Caller()
    return caller
