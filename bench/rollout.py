"""Measured by `cargo xtask bench rollout`: the guide's loop over many files, with /code, since /ask never edits."""

import sys
import time

from readyroom import launch_cluster

workers, files = int(sys.argv[1]), sys.argv[2:]
cluster = launch_cluster("aider", count=workers, routing="least_busy", wait="first" if len(files) > workers else "all")
began = time.perf_counter()

for filepath in files:
    cluster.send(f"/add {filepath}")
    cluster.send(f"/code 'Add type hints to {filepath}'")

# Collect results
for i in range(len(files)):
    response = cluster.read_any(timeout=60)
    print(response.text)

took = time.perf_counter() - began
cluster.shutdown()
print("took", took)
