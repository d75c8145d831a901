"""Measured by `cargo xtask bench python`: turn.py DEFINITION turn|read|memory COUNT prints numbers."""

import sys
import time
from pathlib import Path

from readyroom import launch_cluster

definition, what, count = sys.argv[1], sys.argv[2], int(sys.argv[3])


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def turns(cluster, count: int) -> None:
    for _ in range(count):
        cluster.send("hello")
        if not cluster.read_any(timeout=10).ok:
            sys.exit("a turn failed")


options = {"routing": "least_busy", "context": "keep", "wait": "all", "tool_files": [definition]}
if what == "turn":
    with launch_cluster("echo", count=1, **options) as cluster:
        turns(cluster, 100)
        began = time.perf_counter()
        turns(cluster, count)
        print((time.perf_counter() - began) / count)
elif what == "read":
    # Seven of eight are busy; how long after the end of the eighth's turn, as the engine saw it, is it there?
    with launch_cluster("echo", count=8, **options) as cluster:
        for n in range(7):
            cluster.send_to(n, "@sleep 600000")
        for n in range(count):
            began = time.perf_counter()
            cluster.send_to(7, "@sleep 5")
            response = cluster.read_any(timeout=10)
            took = time.perf_counter() - began
            print(max(0.0, took - response.timings.queued - response.timings.reset - response.timings.turn))
        cluster.shutdown()
else:
    with launch_cluster("echo", count=1, **options) as cluster:
        turns(cluster, 10_000)
        first = memory()
        turns(cluster, count - 10_000)
        print(first, memory())
