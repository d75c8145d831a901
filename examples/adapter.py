"""An adapter that starts a process for each request, and the same one on a pool of warm instances."""

import subprocess
import sys
from dataclasses import dataclass

from readyroom import PoolAwareMixin, make_pool_aware


@dataclass
class Request:
    prompt: str
    file: str


class OneShotAdapter:
    """What many programs have: one process for each request."""

    tool_id = "aider"

    def invoke(self, request: Request) -> str:
        command = ["aider", "--yes-always", "--message", request.prompt, request.file]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class AiderAdapter(PoolAwareMixin, OneShotAdapter):
    """The same with a pool, when it is wanted."""


def main(prompt: str, files: list[str]) -> None:
    adapter = AiderAdapter()
    adapter.use_pool(count=2)
    try:
        for file in files:
            print(adapter.invoke(Request(prompt, file)))
        print(adapter.get_pool_status()["metrics"])
    finally:
        adapter.disable_pool()

    # An adapter whose class is not yours: the same from outside.
    pooled = make_pool_aware(OneShotAdapter(), pool_count=1, to_result=lambda response, request: response.text)
    print(pooled.invoke(Request(prompt, files[0])))
    pooled.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
