"""Measured by `cargo xtask bench rollout`: the guide's loop over many files, with /code, since /ask never edits."""

import sys

from readyroom import launch_cluster

workers, files = int(sys.argv[1]), sys.argv[2:]
cluster = launch_cluster("aider", count=workers, routing="least_busy")

for filepath in files:
    cluster.send(f"/add {filepath}")
    cluster.send(f"/code 'Add type hints to {filepath}'")

# Collect results
for i in range(len(files)):
    response = cluster.read_any(timeout=60)
    print(response.text)

cluster.shutdown()
