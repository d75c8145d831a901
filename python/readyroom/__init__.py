"""Keeps command-line tools warm, gives jobs to them, and knows exactly when each has finished.

    >>> from readyroom import launch_cluster
    >>> cluster = launch_cluster("python3", count=2, permissions="full")
    >>> index = cluster.send("print('hello')")
    >>> response = cluster.read_any(timeout=30)
    >>> response.text
    'hello\\n'
    >>> cluster.shutdown()
    0
"""

from __future__ import annotations

import logging as _logging
import os as _os

from . import _binary, _core, errors
from .aio import AsyncCluster
from .batch import BatchResult, Outcome, resume, run_batch
from .cluster_manager import ClusterManager, TurnFuture, launch_cluster
from .cluster_manager import _open as _open_clusters
from .errors import *  # noqa: F403
from .executor import ClusterExecutor
from .job import Job
from .orchestrator import Orchestrator
from .pool_adapter_mixin import PoolAwareMixin, make_pool_aware
from .process_pool import ProcessPool, load_aim_registry
from .response import ContextReply, Response, Timings, Usage
from .routing import LEAST_BUSY, ROUND_ROBIN, STICKY, RoutingStrategy

__version__ = _core.__version__

__all__ = [
    "LEAST_BUSY",
    "ROUND_ROBIN",
    "STICKY",
    "AsyncCluster",
    "BatchResult",
    "ClusterExecutor",
    "ClusterManager",
    "ContextReply",
    "Job",
    "Orchestrator",
    "Outcome",
    "PoolAwareMixin",
    "ProcessPool",
    "Response",
    "RoutingStrategy",
    "Timings",
    "TurnFuture",
    "Usage",
    "launch_cluster",
    "load_aim_registry",
    "make_pool_aware",
    "resume",
    "run_batch",
]
__all__ += errors.__all__

_logging.getLogger("readyroom").addHandler(_logging.NullHandler())


def _after_fork() -> None:
    # The instances are the parent's.
    _open_clusters.clear()
    _core.forked()


_os.register_at_fork(after_in_child=_after_fork)
_core.use_program(_os.fspath(_binary.path()))
