"""Clusters for asyncio.

    >>> import asyncio
    >>> async def main():
    ...     async with AsyncCluster("python3", 2, permissions="full") as cluster:
    ...         answers = await asyncio.gather(*(cluster.ask(f"print({n})") for n in range(3)))
    ...     return [answer.text for answer in answers]
    >>> asyncio.run(main())
    ['0\\n', '1\\n', '2\\n']
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from . import _core
from .cluster_manager import ClusterManager, _Path, _untold
from .job import Job
from .process_pool import _ended
from .response import Response

__all__ = ["AsyncCluster"]

_T = TypeVar("_T")


class AsyncCluster:
    """A cluster whose waits are awaited. Launched by ``async with``, or by :meth:`launch`.

    >>> import asyncio
    >>> async def main():
    ...     async with AsyncCluster("python3", 1, permissions="full") as cluster:
    ...         return (await cluster.ask("print(6 * 7)")).text
    >>> asyncio.run(main())
    '42\\n'
    """

    def __init__(self, tool: str, count: int = 3, routing: str = "round_robin", **options: Any) -> None:
        self._launch = (tool, count, routing, options)
        self._cluster: ClusterManager | None = None
        # What responses() is owed: jobs that are on their way, those that ended, and who waits for one to end.
        self._lock = threading.Lock()
        self._on_the_way = 0
        self._over: deque[Future[Response]] = deque()
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def cluster(self) -> ClusterManager:
        """The cluster itself, whose calls do not await."""
        if self._cluster is None:
            raise RuntimeError("the cluster is not launched; use `async with`, or await launch()")
        return self._cluster

    async def launch(self) -> AsyncCluster:
        """Launches the instances."""
        if self._cluster is None:
            tool, count, routing, options = self._launch
            self._cluster = await _stoppable(
                lambda stop: ClusterManager(tool, count, routing, **{**options, "_stop": stop})
            )
        return self

    async def ask(
        self,
        prompt: str | Job | Mapping[str, Any],
        *,
        files: Iterable[_Path] = (),
        key: str | None = None,
        timeout: float | None = None,
        mode: str | None = None,
    ) -> Response:
        """Runs a job and returns its response, or raises its kind's exception. Cancelling the task cancels the turn."""
        future = self.cluster.submit(prompt, files=files, key=key, timeout=timeout, mode=mode)
        # A cancel of the awaiting task reaches the future, and so the turn.
        return await asyncio.wrap_future(future)

    def submit(self, prompt: str | Job | Mapping[str, Any], **more: Any) -> asyncio.Future[Response]:
        """Submits a job whose response :meth:`responses` hands out; may be awaited as well."""
        future = self.cluster.submit(prompt, **more)
        with self._lock:
            self._on_the_way += 1
        future.add_done_callback(self._finished)
        awaited = asyncio.wrap_future(future)
        # Whoever takes it from responses() need not look at this one.
        awaited.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return awaited

    def _finished(self, future: Future[Response]) -> None:
        with self._lock:
            if not future.cancelled():
                self._over.append(future)
            self._on_the_way -= 1
            for change in self._waiting:
                _in_loop(change.get_loop(), _wake, change)

    async def responses(self) -> AsyncIterator[Response]:
        """The responses of what was submitted, as they come, until all are handed out, each once."""
        while self._on_the_way or self._over:
            try:
                over = self._over.popleft()
            except IndexError:
                await self._change()
            else:
                yield _ended(over)

    async def _change(self) -> None:
        """Waits until a job ends, where none is there that has."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._over or not self._on_the_way:
                return
            self._waiting.add(change)
        try:
            await change
        finally:
            with self._lock:
                self._waiting.discard(change)

    async def stream(
        self, prompt: str | Job | Mapping[str, Any], *, files: Iterable[_Path] = (), timeout: float | None = None
    ) -> AsyncIterator[str]:
        """The answer piece by piece, as the tool prints it. Leaving the loop early, or cancelling the task, cancels the
        turn.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        told: list[str] = []

        def tell(piece: str | None) -> None:
            _in_loop(loop, pieces.put_nowait, piece)

        future = self.cluster._submit(prompt, tell, files=files, timeout=timeout)
        future.add_done_callback(lambda _: tell(None))
        try:
            while (piece := await pieces.get()) is not None:
                told.append(piece)
                yield piece
            for piece in _untold(future.result(), told):
                yield piece
        finally:
            future.cancel()

    async def check_health(self) -> dict[str, Any]:
        """As :meth:`ClusterManager.check_health`."""
        return await asyncio.to_thread(self.cluster.check_health)

    async def get_status(self) -> dict[str, Any]:
        """As :meth:`ClusterManager.get_status`."""
        return await asyncio.to_thread(self.cluster.get_status)

    async def restart_instance(self, index: int, force: bool = False) -> None:
        """As :meth:`ClusterManager.restart_instance`."""
        await _stoppable(lambda stop: self.cluster._restart(index, force, stop))

    async def drain(self) -> None:
        """Waits until no turn is queued or runs."""
        await _stoppable(self.cluster._core.drain)

    async def shutdown(self, wait: bool = False) -> int:
        """As :meth:`ClusterManager.shutdown`."""
        if self._cluster is None:
            return 0
        try:
            if wait:
                await self.drain()
        finally:
            dropped = await asyncio.to_thread(self._cluster.shutdown)
        return dropped

    async def __aenter__(self) -> AsyncCluster:
        return await self.launch()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown(wait=kind is None)

    def __repr__(self) -> str:
        return f"<AsyncCluster over {self._cluster!r}>" if self._cluster else f"<AsyncCluster {self._launch[0]!r}: not launched>"


async def _stoppable(call: Callable[[_core.Stop], _T]) -> _T:
    """Calls in a thread what waits until it is done or stopped; a cancel of the task stops it."""
    stop = _core.Stop()
    try:
        return await asyncio.to_thread(call, stop)
    except asyncio.CancelledError:
        stop.set()
        raise


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Has a loop call something; nothing where the loop is closed by now, and nobody waits in it."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


def _wake(change: asyncio.Future[None]) -> None:
    if not change.done():
        change.set_result(None)
