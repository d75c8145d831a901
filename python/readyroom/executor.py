"""An executor of :mod:`concurrent.futures` whose workers are warm instances.

    >>> with ClusterExecutor("python3", 2, permissions="full") as executor:
    ...     [response.text for response in executor.map("print({!r})".format, ["a", "b", "c"])]
    ['a\\n', 'b\\n', 'c\\n']
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from .cluster_manager import ClusterManager, TurnFuture
from .job import Job
from .response import Response

__all__ = ["ClusterExecutor"]


class ClusterExecutor(Executor):
    """``submit`` takes what makes a job: a prompt with the files that it is about, a :class:`Job`, or a function that
    returns one of these and is called with the other arguments. The result is the :class:`Response`.

    >>> with ClusterExecutor("python3", 1, permissions="full") as executor:
    ...     executor.submit("print(6 * 7)").result().text
    '42\\n'
    """

    def __init__(self, tool: str, count: int = 3, routing: str = "least_busy", **options: Any) -> None:
        self.cluster = ClusterManager(tool, count, routing, **options)
        self._lock = threading.Lock()
        self._down = False
        self._open: set[TurnFuture] = set()

    def submit(  # type: ignore[override]
        self, fn: str | Job | Mapping[str, Any] | Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Response]:
        """Submits a job. Raises ``RuntimeError`` after a shutdown."""
        if callable(fn):
            job = Job.of(fn(*args, **kwargs))
        else:
            job = Job.of(fn, files=tuple(args), **kwargs)
        with self._lock:
            if self._down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future = self.cluster.submit(job)
            self._open.add(future)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[Response]) -> None:
        with self._lock:
            self._open.discard(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes nothing new. With ``wait``, returns when all jobs have ended and the instances are gone; without, what
        was submitted goes on, and the instances end after it. ``cancel_futures`` cancels what was submitted.
        """
        with self._lock:
            self._down = True
            left = list(self._open)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            self.cluster.shutdown(wait=True)
        else:
            threading.Thread(target=self.cluster.shutdown, args=(True,), name="readyroom-shutdown").start()

    def __repr__(self) -> str:
        return f"<ClusterExecutor over {self.cluster!r}>"
