"""Clusters: N warm instances of one tool.

    >>> from readyroom.cluster_manager import launch_cluster
    >>> cluster = launch_cluster("python3", count=2, permissions="full")
    >>> index = cluster.send("print('hello')")
    >>> print(cluster.read_any(timeout=30).text, end="")
    hello
    >>> cluster.shutdown()
    0
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Union

from . import _callers, _checks, _core
from .errors import TurnFailed
from .job import Job
from .response import Response

__all__ = ["ClusterManager", "TurnFuture", "launch_cluster"]

_log = logging.getLogger("readyroom")

_Path = Union[str, "os.PathLike[str]"]

_ROUTINGS = ("round_robin", "least_busy", "sticky")

#: Clusters that are not down yet: an exit of the interpreter ends them in order.
_open: set[_core.Cluster] = set()


@atexit.register
def _shut_all_down() -> None:
    for cluster in list(_open):
        cluster.shutdown()


class TurnFuture(Future[Response]):
    """The future of a job: its result is the :class:`Response`, and a job that did not succeed raises.

    All callbacks are called on one thread, in the order in which jobs end. A callback may wait for another future's
    ``result()`` or ``exception()``; one that waits in any other way holds up the ends of all jobs meanwhile.

    >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
    ...     future = cluster.submit("print(6 * 7)")
    ...     future.result(timeout=30).text
    '42\\n'
    """

    _ticket: _core.Ticket | None = None

    def cancel(self) -> bool:
        """Cancels the job, queued or running; False where it has ended."""
        if not super().cancel():
            return False
        if self._ticket is not None:
            self._ticket.cancel()
        return True

    def result(self, timeout: float | None = None) -> Response:
        """Waits for the response, ``timeout`` seconds at most. Raises what the job failed with."""
        if not self.done():
            _core.hand_over()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the end, ``timeout`` seconds at most, and returns what the job failed with."""
        if not self.done():
            _core.hand_over()
        return super().exception(timeout)

    def _end(self, raw: _core.RawResponse) -> None:
        if not self.set_running_or_notify_cancel():
            return
        response = Response(raw)
        error = response.error
        if error is None:
            self.set_result(response)
            return
        if isinstance(error, TurnFailed):
            error.response = response
        self.set_exception(error)


class ClusterManager:
    """A cluster: a pool of warm instances of one tool, and a router that gives turns to them.

    Every thread, and every asyncio task, is a caller of its own: what it sends joins its own turn, and what it reads is
    its own as long as it is owed any.

    >>> with ClusterManager("python3", count=2, permissions="full") as cluster:
    ...     for n in range(4):
    ...         _ = cluster.send(f"print({n} * {n})")
    ...     sorted(cluster.read_any().text for _ in range(4))
    ['0\\n', '1\\n', '4\\n', '9\\n']
    """

    def __init__(
        self,
        tool: str,
        count: int = 3,
        routing: str = "round_robin",
        *,
        context: str = "fresh",
        permissions: str = "edit",
        model: str | None = None,
        cwd: _Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = 600,
        wait: str = "first",
        ready_timeout: float = 60,
        max_pending: int = 10_000,
        one_shot: bool = False,
        home: _Path | None = None,
        args: Iterable[str] = (),
        record: _Path | None = None,
        tool_files: Iterable[_Path] = (),
        _stop: _core.Stop | None = None,
    ) -> None:
        options = {
            "count": _checks.whole("count", count, 1, 1024),
            "routing": _checks.one_of("routing", routing, _ROUTINGS),
            "context": _checks.one_of("context", context, ("fresh", "keep")),
            "permissions": _checks.one_of("permissions", permissions, ("read", "edit", "full")),
            "model": _checks.optional_text("model", model),
            "cwd": os.path.abspath(_checks.path("cwd", os.curdir if cwd is None else cwd)),
            "env": _checks.environment("env", env),
            "timeout": _checks.optional_seconds("timeout", timeout),
            "wait": _checks.one_of("wait", wait, ("first", "all", "none")),
            "ready_timeout": _checks.seconds("ready_timeout", ready_timeout),
            "max_pending": _checks.whole("max_pending", max_pending, 1, 2**31),
            "one_shot": bool(one_shot),
            "home": _checks.optional_path("home", home),
            "args": _checks.words("args", args),
            "record": _checks.optional_path("record", record),
            "tool_files": [os.path.abspath(file) for file in _checks.paths("tool_files", tool_files)],
        }
        self._count = count
        self._routing = str(options["routing"])
        self._down = True
        self._core = _core.launch(_checks.text("tool", tool), options, _stop)
        self._down = False
        _open.add(self._core)
        self._core.on_event(_logged(self._core.tool), _log.isEnabledFor(logging.DEBUG))

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self._core.tool

    @property
    def count(self) -> int:
        """How many instances it has."""
        return self._count

    @property
    def routing(self) -> str:
        """How turns are given to instances."""
        return self._routing

    def send(self, text: str, *, key: str | None = None) -> int:
        """Sends a text for this caller, and returns the index of the instance that it goes to.

        A context command (``/add f``, ``/drop f``) opens this caller's turn or joins the one that is open; anything else
        is the prompt, which closes the turn and lets it run. Never waits for an answer. Under ``least_busy`` the index is
        a plan, and ``response.instance`` the truth.

        Raises :class:`QueueFull` above ``max_pending``, :class:`BadInput` for an empty prompt.

        >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
        ...     cluster.send("print(1)")
        0
        """
        text = _checks.text("text", text)
        return self._core.send(_callers.current().at(self), text, None, _checks.optional_text("key", key))

    def send_to(self, instance: int, text: str) -> int:
        """As :meth:`send`, to one instance.

        >>> with launch_cluster("python3", count=2, permissions="full") as cluster:
        ...     cluster.send_to(1, "print(1)")
        1
        """
        instance = _checks.whole("instance", instance, 0, self._count - 1)
        return self._core.send(_callers.current().at(self), _checks.text("text", text), instance, None)

    def read_any(self, timeout: float = 30) -> Response | None:
        """The next finished turn, as soon as there is one: this caller's own while it is owed any, else anybody's. None
        when ``timeout`` (seconds) is over. Each response is handed out once.

        >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
        ...     cluster.read_any(timeout=0) is None
        True
        """
        raw = self._core.read(_callers.current().at(self), _checks.seconds("timeout", timeout), None)
        return None if raw is None else Response(raw)

    def read(self, instance: int, timeout: float = 30) -> Response | None:
        """The next finished turn that this instance ran.

        >>> with launch_cluster("python3", count=2, permissions="full") as cluster:
        ...     index = cluster.send("print('here')")
        ...     cluster.read(index).text
        'here\\n'
        """
        instance = _checks.whole("instance", instance, 0, self._count - 1)
        raw = self._core.read(_callers.current().at(self), _checks.seconds("timeout", timeout), instance)
        return None if raw is None else Response(raw)

    def submit(
        self,
        prompt: str | Job | Mapping[str, Any],
        *,
        files: Iterable[_Path] = (),
        key: str | None = None,
        timeout: float | None = None,
        mode: str | None = None,
    ) -> TurnFuture:
        """Submits a job; its answer goes to the future alone, which raises the kind's exception where it fails.

        The prompt reaches the model as it is, whatever it begins with.

        >>> with launch_cluster("python3", count=2, permissions="full") as cluster:
        ...     futures = [cluster.submit(f"print({n})") for n in range(3)]
        ...     [future.result().text for future in futures]
        ['0\\n', '1\\n', '2\\n']
        """
        return self._submit(prompt, None, files=files, key=key, timeout=timeout, mode=mode)

    def _submit(
        self,
        prompt: str | Job | Mapping[str, Any],
        pieces: Callable[[str], object] | None,
        *,
        files: Iterable[_Path] = (),
        key: str | None = None,
        timeout: float | None = None,
        mode: str | None = None,
    ) -> TurnFuture:
        job = Job.of(prompt, files=tuple(_checks.paths("files", files)), key=key, timeout=timeout, mode=mode)
        future = TurnFuture()
        future._ticket = self._core.submit(job._order(), future._end, pieces)
        return future

    def stream(
        self, prompt: str | Job | Mapping[str, Any], *, files: Iterable[_Path] = (), timeout: float | None = None
    ) -> Iterator[str]:
        """The answer piece by piece, as the tool prints it. Where the tool asks its model again, pieces may repeat; a turn
        that fails raises at its end. Leaving the loop early cancels the turn.

        >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
        ...     "".join(cluster.stream("print('piece by piece')"))
        'piece by piece\\n'
        """
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        future = self._submit(prompt, pieces.put, files=files, timeout=timeout)
        future.add_done_callback(lambda _: pieces.put(None))
        return _pieces(pieces, future)

    def check_health(self) -> dict[str, Any]:
        """How the instances are doing: ``alive``, ``total``, ``dead`` and ``instances``. What starts counts as alive, so
        ``alive + dead == total`` always.

        >>> with launch_cluster("python3", count=2, permissions="full") as cluster:
        ...     health = cluster.check_health()
        >>> health["alive"], health["total"], health["dead"]
        (2, 2, 0)
        """
        health: dict[str, Any] = json.loads(self._core.check_health())
        return health

    def get_status(self) -> dict[str, Any]:
        """The status of the pool and each instance, with ``metrics``: ``total_sent`` (calls of ``send``, and jobs),
        ``total_received`` (responses handed out).

        >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
        ...     _ = cluster.submit("print(1)").result()
        ...     cluster.get_status()["metrics"]["total_sent"]
        1
        """
        status: dict[str, Any] = json.loads(self._core.status())
        sent, received = self._core.metrics()
        status["metrics"] = {
            "total_sent": sent,
            "total_received": received,
            "succeeded": status["succeeded"],
            "unsuccessful": status["unsuccessful"],
            "pending": self._core.pending(),
        }
        status["routing"] = self._routing
        return status

    def restart_instance(self, index: int, force: bool = False) -> None:
        """Starts an instance again when its turn is over, or at once with ``force``, which cancels the turn. Lifts a
        quarantine. Returns when it is ready, and raises why it did not become so.

        >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
        ...     cluster.restart_instance(0)
        ...     cluster.get_status()["instances"][0]["generation"]
        2
        """
        self._restart(index, force, None)

    def _restart(self, index: int, force: bool, stop: _core.Stop | None) -> None:
        self._core.restart(_checks.whole("index", index, 0, self._count - 1), bool(force), stop)

    def events(self) -> Iterator[dict[str, Any]]:
        """The events from now on, as they happen, until the cluster is down. ``events_missed`` tells how many are gone
        that were not taken while 8,192 others came.

        >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
        ...     events = cluster.events()
        ...     future = cluster.submit("print(1)")
        ...     next(event["event"] for event in events if event["event"] == "turn_ended")
        'turn_ended'
        """
        return _events(self._core.events())

    def drain(self) -> None:
        """Waits until no turn is queued or runs."""
        self._core.drain()

    def shutdown(self, wait: bool = False) -> int:
        """Ends all instances in order, and returns how many unfinished turns that cancelled. With ``wait`` what is queued
        or runs is finished first; an exception meanwhile, such as Ctrl-C, cancels it. May be called again.

        >>> cluster = launch_cluster("python3", count=1, permissions="full")
        >>> cluster.shutdown(), cluster.shutdown()
        (0, 0)
        """
        if self._down:
            return 0
        try:
            if wait:
                self._core.drain()
        finally:
            dropped = self._core.shutdown()
            self._down = True
            _open.discard(self._core)
        return dropped

    def close(self) -> None:
        """The same as :meth:`shutdown`."""
        self.shutdown()

    def _forget(self, caller: int) -> None:
        if not self._down:
            self._core.forget(caller)

    def __enter__(self) -> ClusterManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes what is queued at a normal end of the block, cancels it on an exception."""
        self.shutdown(wait=kind is None)

    def __del__(self) -> None:
        if getattr(self, "_down", True):
            return
        core = self._core
        try:
            core.shutdown_soon(_discarding(core))
            # It raises where warnings are errors.
            warnings.warn(f"{self!r} was forgotten without shutdown()", ResourceWarning, source=self, stacklevel=2)
        except Exception:
            pass  # or the interpreter is ending: the exit has seen to it

    def __repr__(self) -> str:
        state = "down" if self._down else f"{self._count} instances, {self._routing}"
        return f"<ClusterManager {self._core.tool!r}: {state}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a cluster can't be pickled: its instances belong to this process; launch one in the other process")


def launch_cluster(
    tool: str,
    count: int = 3,
    routing: str = "round_robin",
    *,
    context: str = "fresh",
    permissions: str = "edit",
    model: str | None = None,
    cwd: _Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = 600,
    wait: str = "first",
    ready_timeout: float = 60,
    max_pending: int = 10_000,
    **more: Any,
) -> ClusterManager:
    """Launches ``count`` warm instances of a tool.

    :param tool: a name that ``readyroom tools`` lists.
    :param routing: ``round_robin``, ``least_busy`` or ``sticky``.
    :param context: ``fresh``: each turn begins in a context that is proven new; ``keep``: the conversation goes on.
    :param permissions: ``read``, ``edit`` or ``full``.
    :param model: the model, instead of the tool's default.
    :param cwd: where the tool works; the current directory.
    :param env: variables over those of this process.
    :param timeout: the longest time of a turn in seconds; None for no limit.
    :param wait: how many instances to wait for: ``first``, ``all`` or ``none``.
    :param ready_timeout: how long to wait for them.
    :param max_pending: the most turns that may be queued or unread.
    :param more: ``one_shot`` (a process for each turn), ``home`` (a HOME of the pool's own), ``args`` (added to the
        tool's command line), ``record`` (a directory for every byte), ``tool_files`` (definitions of your own).
    :raises BadInput: no tool of that name is known, or the options can't be.
    :raises ToolMissing: it is not installed.
    :raises NotReady: none became ready; ``error.instances`` says why, for each.

    >>> cluster = launch_cluster("python3", count=1, permissions="full")
    >>> cluster.tool, cluster.count
    ('python3', 1)
    >>> cluster.shutdown()
    0
    """
    return ClusterManager(
        tool,
        count,
        routing,
        context=context,
        permissions=permissions,
        model=model,
        cwd=cwd,
        env=env,
        timeout=timeout,
        wait=wait,
        ready_timeout=ready_timeout,
        max_pending=max_pending,
        **more,
    )


def _discarding(core: _core.Cluster) -> Callable[[], None]:
    return lambda: _open.discard(core)


def _events(events: _core.Events) -> Iterator[dict[str, Any]]:
    while (event := events.next()) is not None:
        yield json.loads(event)


def _pieces(pieces: queue.SimpleQueue[str | None], future: TurnFuture) -> Iterator[str]:
    told: list[str] = []
    try:
        while (piece := _next(pieces)) is not None:
            told.append(piece)
            yield piece
        yield from _untold(future.result(), told)
    finally:
        future.cancel()


def _next(pieces: queue.SimpleQueue[str | None]) -> str | None:
    if pieces.empty():
        _core.hand_over()
    return pieces.get()


def _untold(response: Response, told: list[str]) -> Iterator[str]:
    """What no piece has told: all of it, where a tool says nothing of its progress."""
    whole, begun = response.transcript, "".join(told)
    if whole.startswith(begun) and whole != begun:
        yield whole[len(begun) :]


_LEVELS = {
    "instance_quarantined": logging.ERROR,
    "anomaly_seen": logging.WARNING,
    "strays_ended": logging.WARNING,
    "instance_started": logging.INFO,
    "instance_ready": logging.INFO,
    "instance_ended": logging.INFO,
}


def _logged(tool: str) -> Callable[[str], None]:
    def log(text: str) -> None:
        event = json.loads(text)
        name = event.pop("event")
        level = _LEVELS.get(name, logging.DEBUG)
        if _log.isEnabledFor(level):
            told = ", ".join(f"{key}: {value}" for key, value in event.items() if value is not None)
            _log.log(level, "%s: %s (%s)", tool, name.replace("_", " "), told, extra={"event": {"event": name, **event}})

    return log
