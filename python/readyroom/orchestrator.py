"""Jobs for several tools: grouped by tool, the tools side by side.

    >>> jobs = [{"tool": "python3", "prompt": f"print({n})"} for n in range(3)]
    >>> with Orchestrator(permissions="full") as orchestrator:
    ...     [response.text for response in orchestrator.execute_jobs(jobs)]
    ['0\\n', '1\\n', '2\\n']
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from . import _core
from .cluster_manager import ClusterManager
from .errors import Cancelled
from .job import Job
from .process_pool import _ended
from .response import Response

__all__ = ["Orchestrator"]


class _Running:
    """What an orchestrator's calls have under way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: Each ends the launches of one call.
        self.stops: set[_core.Stop] = set()
        self.clusters: set[ClusterManager] = set()


#: The stop of the call that a thread works for.
_of_thread = threading.local()


def _work_for(stop: _core.Stop) -> None:
    _of_thread.stop = stop


class Orchestrator:
    """Runs jobs on pools, one for each tool that has several; pools stay for the next call.

    The methods that begin with an underscore are there to be overridden.

    >>> with Orchestrator(count=2, permissions="full") as orchestrator:
    ...     orchestrator.execute_jobs([Job("print(6 * 7)", tool="python3")])[0].text
    '42\\n'
    """

    # Here, too, so that a subclass may have an __init__ of its own that knows nothing of them.
    _count: int = 3
    _routing: str = "least_busy"
    _options: Mapping[str, Any] = {}
    _tool_pools: dict[str, ClusterManager]

    def __init__(self, count: int = 3, routing: str = "least_busy", **options: Any) -> None:
        self._count = count
        self._routing = routing
        self._options = options
        self._tool_pools = {}

    def execute_jobs(self, jobs: Iterable[Job | Mapping[str, Any]]) -> list[Response]:
        """Runs jobs to their ends, and returns their responses in the jobs' order. A job that fails has its response
        there, too. An exception, such as Ctrl-C, ends all pools.
        """
        # Each an object of its own, by which its response is found again.
        all_jobs = [dataclasses.replace(Job.of(job)) for job in jobs]
        groups = self._group_by_tool(all_jobs)
        results: dict[int, Response] = {}
        stop, under_way = _core.Stop(), self._running()
        with under_way.lock:
            under_way.stops.add(stop)
        workers = max(1, len(groups))
        with ThreadPoolExecutor(workers, "readyroom-tool", initializer=_work_for, initargs=(stop,)) as threads:
            try:
                running = [(of_tool, threads.submit(self._execute, tool, of_tool)) for tool, of_tool in groups.items()]
                for of_tool, future in running:
                    results.update((id(job), response) for job, response in zip(of_tool, future.result()))
            except BaseException:
                # What the threads wait for is over then.
                self.close()
                raise
            finally:
                with under_way.lock:
                    under_way.stops.discard(stop)
        return [results[id(job)] for job in all_jobs]

    def _execute(self, tool: str, jobs: Sequence[Job]) -> list[Response]:
        if len(jobs) > 1 or tool in self._tool_pools:
            return self._execute_with_pool(self._get_or_create_pool(tool), jobs)
        return self._execute_one_shot(jobs)

    def _group_by_tool(self, jobs: Iterable[Job | Mapping[str, Any]]) -> dict[str, list[Job]]:
        """The jobs of each tool, in order."""
        groups: dict[str, list[Job]] = {}
        for job in map(Job.of, jobs):
            if job.tool is None:
                raise ValueError(f"the job {job.prompts[0][:40]!r} names no tool")
            groups.setdefault(job.tool, []).append(job)
        return groups

    def _get_or_create_pool(self, tool_id: str) -> ClusterManager:
        """The pool of a tool, launched when it is first needed."""
        pool = self._tool_pools.get(tool_id)
        if pool is not None and not pool._down:
            return pool
        launched = self._launch(tool_id, self._count)
        with self._running().lock:
            pool = self._tool_pools.get(tool_id)
            if pool is None or pool._down:
                self._tool_pools[tool_id] = pool = launched
        if pool is not launched:
            # Another thread's was there first.
            self._end(launched)
        return pool

    def _execute_with_pool(self, pool: ClusterManager, jobs: Sequence[Job]) -> list[Response]:
        """Runs jobs on a pool."""
        futures = [pool.submit(job) for job in jobs]
        return [_ended(future) for future in futures]

    def _execute_one_shot(self, jobs: Sequence[Job]) -> list[Response]:
        """Runs jobs in a process each."""
        responses = []
        for job in jobs:
            cluster = self._launch(str(job.tool), 1, one_shot=True)
            try:
                responses.append(_ended(cluster.submit(job)))
            finally:
                self._end(cluster)
        return responses

    def _running(self) -> _Running:
        running: _Running = self.__dict__.setdefault("_under_way", _Running())
        return running

    def _launch(self, tool: str, count: int, **more: Any) -> ClusterManager:
        """A cluster that :meth:`close` ends, also while it is launched."""
        stop: _core.Stop | None = getattr(_of_thread, "stop", None)
        cluster = ClusterManager(tool, count, self._routing, **{**self._options, **more, "_stop": stop})
        running = self._running()
        with running.lock:
            running.clusters.add(cluster)
            closed = stop is not None and stop.is_set()
        if closed:
            self._end(cluster)
            raise Cancelled("the orchestrator was closed meanwhile")
        return cluster

    def _end(self, cluster: ClusterManager) -> None:
        cluster.shutdown()
        with self._running().lock:
            self._running().clusters.discard(cluster)

    def close(self) -> None:
        """Ends all pools, what runs, and what is being launched."""
        running = self._running()
        with running.lock:
            for stop in running.stops:
                stop.set()
            clusters = {*running.clusters, *self._tool_pools.values()}
            self._tool_pools.clear()
        for cluster in clusters:
            self._end(cluster)

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Orchestrator with pools of {', '.join(self._tool_pools) or 'no tool yet'}>"
