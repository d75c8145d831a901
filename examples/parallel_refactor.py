"""Changes files side by side: python examples/parallel_refactor.py "Add type hints" src/*.py"""

import sys

from readyroom import launch_cluster


def main(prompt: str, files: list[str], tool: str = "aider") -> int:
    failed = 0
    with launch_cluster(tool, count=min(3, len(files)), routing="least_busy") as cluster:
        for file in files:
            cluster.send(f"/add {file}")
            cluster.send(f"/code {prompt}")
        for _ in files:
            response = cluster.read_any(timeout=600)
            if response is None:
                print("no answer within ten minutes")
                return 1
            print(f"instance {response.instance}: {', '.join(response.changed_files) or response}")
            failed += not response.ok
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
