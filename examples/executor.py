"""Warm instances as workers of concurrent.futures: python examples/executor.py src/*.py"""

import sys
from concurrent.futures import as_completed

from readyroom import ClusterExecutor, Job


def question(file: str) -> Job:
    return Job("What does this file do? One sentence.", files=[file], mode="ask")


def main(files: list[str], tool: str = "aider") -> None:
    with ClusterExecutor(tool, 3, permissions="read") as executor:
        futures = {executor.submit(question, file): file for file in files}
        for future in as_completed(futures):
            print(f"{futures[future]}: {future.result().text.strip()}")


if __name__ == "__main__":
    main(sys.argv[1:])
