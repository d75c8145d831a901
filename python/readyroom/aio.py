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
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any

from .cluster_manager import ClusterManager, _Path
from .job import Job
from .response import Response

__all__ = ["AsyncCluster"]


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
        self._ended: asyncio.Queue[Response | None] = asyncio.Queue()
        self._unread = 0

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
            self._cluster = await asyncio.to_thread(ClusterManager, tool, count, routing, **options)
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
        future = asyncio.wrap_future(self.cluster.submit(prompt, **more))
        self._unread += 1
        future.add_done_callback(self._finished)
        return future

    def _finished(self, future: asyncio.Future[Response]) -> None:
        if future.cancelled():
            self._ended.put_nowait(None)
            return
        error = future.exception()
        self._ended.put_nowait(future.result() if error is None else getattr(error, "response", None))

    async def responses(self) -> AsyncIterator[Response]:
        """The responses of what was submitted, as they come, until all are handed out."""
        while self._unread > 0:
            response = await self._ended.get()
            self._unread -= 1
            if response is not None:
                yield response

    async def stream(self, prompt: str | Job | Mapping[str, Any], **more: Any) -> AsyncIterator[str]:
        """The answer piece by piece, as the tool prints it."""
        pieces = self.cluster.stream(prompt, **more)
        over = object()
        try:
            while (piece := await asyncio.to_thread(next, pieces, over)) is not over:
                yield str(piece)
        finally:
            await asyncio.to_thread(pieces.close)  # type: ignore[attr-defined]

    async def check_health(self) -> dict[str, Any]:
        """As :meth:`ClusterManager.check_health`."""
        return await asyncio.to_thread(self.cluster.check_health)

    async def get_status(self) -> dict[str, Any]:
        """As :meth:`ClusterManager.get_status`."""
        return await asyncio.to_thread(self.cluster.get_status)

    async def restart_instance(self, index: int, force: bool = False) -> None:
        """As :meth:`ClusterManager.restart_instance`."""
        await asyncio.to_thread(self.cluster.restart_instance, index, force)

    async def drain(self) -> None:
        """Waits until no turn is queued or runs."""
        await asyncio.to_thread(self.cluster.drain)

    async def shutdown(self, wait: bool = False) -> int:
        """As :meth:`ClusterManager.shutdown`."""
        if self._cluster is None:
            return 0
        return await asyncio.to_thread(self._cluster.shutdown, wait)

    async def __aenter__(self) -> AsyncCluster:
        return await self.launch()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown(wait=kind is None)

    def __repr__(self) -> str:
        return f"<AsyncCluster over {self._cluster!r}>" if self._cluster else f"<AsyncCluster {self._launch[0]!r}: not launched>"
