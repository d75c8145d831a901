"""The pool under the adapters and the orchestrator, and the registry of tools in the guide's form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Union

from . import _checks, _core
from .cluster_manager import ClusterManager, TurnFuture
from .job import Job
from .response import Response

__all__ = ["ProcessPool", "load_aim_registry"]

_Path = Union[str, "os.PathLike[str]"]


def load_aim_registry(path: _Path | None = None) -> dict[str, Any]:
    """The tools that are known, as a plain dict: ``{"tools": {name: {"detectCommands": [[...]], ...}}}``. The built-in
    ones are among them. ``path`` names a registry file; else ``$AIM_REGISTRY_PATH`` or the project's own counts.

    >>> from readyroom.process_pool import load_aim_registry
    >>> load_aim_registry()["tools"]["aider"]["detectCommands"]
    [['aider', '--version']]
    """
    named = None if path is None else os.path.abspath(_checks.path("path", path))
    registry: dict[str, Any] = json.loads(_core.load_registry(os.getcwd(), named))
    return registry


class ProcessPool:
    """Warm instances that run jobs and hand back their responses in the jobs' order.

    >>> with ProcessPool("python3", 2, permissions="full") as pool:
    ...     [response.text for response in pool.run(["print(1)", "print(2)", "print(3)"])]
    ['1\\n', '2\\n', '3\\n']
    """

    def __init__(self, tool: str, count: int = 3, routing: str = "least_busy", **options: Any) -> None:
        self.cluster = ClusterManager(tool, count, routing, **options)

    def submit(self, job: str | Job | Mapping[str, Any]) -> TurnFuture:
        """Submits a job.

        >>> with ProcessPool("python3", 1, permissions="full") as pool:
        ...     pool.submit("print(1)").result().text
        '1\\n'
        """
        return self.cluster.submit(job)

    def run(self, jobs: Iterable[str | Job | Mapping[str, Any]]) -> list[Response]:
        """Runs jobs to their ends. A job that fails has its response in the list, like any other.

        >>> with ProcessPool("python3", 1, permissions="full") as pool:
        ...     [response.ok for response in pool.run(["print(1)"])]
        [True]
        """
        futures = [self.cluster.submit(job) for job in jobs]
        return [_ended(future) for future in futures]

    def close(self) -> None:
        """Ends the instances."""
        self.cluster.shutdown()

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<ProcessPool over {self.cluster!r}>"


def _ended(future: Future[Response]) -> Response:
    """The response of a job, however it ended."""
    error = future.exception()
    if error is None:
        return future.result()
    response = getattr(error, "response", None)
    if isinstance(response, Response):
        return response
    raise error
