"""Jobs for several tools: grouped by tool, the tools side by side.

    >>> jobs = [{"tool": "python3", "prompt": f"print({n})"} for n in range(3)]
    >>> with Orchestrator(permissions="full") as orchestrator:
    ...     [response.text for response in orchestrator.execute_jobs(jobs)]
    ['0\\n', '1\\n', '2\\n']
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from .cluster_manager import ClusterManager
from .job import Job
from .process_pool import _ended
from .response import Response

__all__ = ["Orchestrator"]


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
        with ThreadPoolExecutor(max_workers=max(1, len(groups)), thread_name_prefix="readyroom-tool") as threads:
            try:
                running = [(of_tool, threads.submit(self._execute, tool, of_tool)) for tool, of_tool in groups.items()]
                for of_tool, future in running:
                    results.update((id(job), response) for job, response in zip(of_tool, future.result()))
            except BaseException:
                # What the threads wait for is over then.
                self.close()
                raise
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
        if tool_id not in self._tool_pools:
            self._tool_pools[tool_id] = ClusterManager(tool_id, self._count, self._routing, **self._options)
        return self._tool_pools[tool_id]

    def _execute_with_pool(self, pool: ClusterManager, jobs: Sequence[Job]) -> list[Response]:
        """Runs jobs on a pool."""
        futures = [pool.submit(job) for job in jobs]
        return [_ended(future) for future in futures]

    def _execute_one_shot(self, jobs: Sequence[Job]) -> list[Response]:
        """Runs jobs in a process each."""
        responses = []
        for job in jobs:
            cluster = ClusterManager(str(job.tool), 1, self._routing, **{**self._options, "one_shot": True})
            self._alone().add(cluster)
            try:
                responses.append(_ended(cluster.submit(job)))
            finally:
                self._alone().discard(cluster)
                cluster.shutdown()
        return responses

    def _alone(self) -> set[ClusterManager]:
        """The clusters that run a job in a process of its own."""
        clusters: set[ClusterManager] = self.__dict__.setdefault("_clusters_alone", set())
        return clusters

    def close(self) -> None:
        """Ends all pools, and what runs."""
        for cluster in list(self._alone()):
            cluster.shutdown()
        while self._tool_pools:
            _, pool = self._tool_pools.popitem()
            pool.shutdown()

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Orchestrator with pools of {', '.join(self._tool_pools) or 'no tool yet'}>"
