"""Clusters in asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from readyroom import AsyncCluster, Crashed, ClusterManager, Response, launch_cluster


def test_ask_and_gather() -> None:
    async def main() -> list[str]:
        async with AsyncCluster("echo", 3) as cluster:
            answers = await asyncio.gather(*(cluster.ask(f"job {n}") for n in range(9)))
            assert (await cluster.check_health())["alive"] == 3
        return [answer.text for answer in answers]

    assert asyncio.run(main()) == [f"job {n}\n" for n in range(9)]


def test_cancelling_a_task_cancels_its_turn() -> None:
    async def main() -> None:
        async with AsyncCluster("echo", 1) as cluster:
            task = asyncio.create_task(cluster.ask("@sleep 60000"))
            while (await cluster.get_status())["running"] == 0:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await asyncio.wait_for(cluster.ask("and on"), 30)).text == "and on\n"

    asyncio.run(main())


def test_a_failure_is_raised() -> None:
    async def main() -> None:
        async with AsyncCluster("echo", 1) as cluster:
            with pytest.raises(Crashed):
                await cluster.ask("@crash")

    asyncio.run(main())


def test_responses_come_as_they_finish() -> None:
    async def main() -> list[Response]:
        async with AsyncCluster("echo", 2) as cluster:
            cluster.submit("@sleep 400")
            cluster.submit("quick")
            cluster.submit("@crash")
            return [response async for response in cluster.responses()]

    found = asyncio.run(main())
    assert found[0].text == "quick\n" and {response.ok for response in found} == {True, False} and len(found) == 3


def test_streams() -> None:
    async def main() -> tuple[str, int]:
        async with AsyncCluster("echo", 1) as cluster:
            pieces = [piece async for piece in cluster.stream("@print 100000")]
        return "".join(pieces), len(pieces)

    text, pieces = asyncio.run(main())
    assert len(text) == 100000 and pieces > 1
    with launch_cluster("echo", count=1) as cluster:
        for _ in cluster.stream("first\n@sleep 60000"):
            break
        assert cluster.submit("and on").result(timeout=30).ok


def test_many_threads_and_tasks_share_a_cluster(tmp_path: Path) -> None:
    """20 threads and 200 tasks: each has its own answers, and its `/add` and prompt on one instance."""
    (tmp_path / "file").touch()
    wrong: list[str] = []
    turns = 91

    def check(name: str, n: int, first: int, second: int, response: Response | None) -> None:
        text = f"{name} {n}"
        if response is None or not response.ok or text not in response.text:
            wrong.append(f"{text}: {response}")
        elif not first == second == response.instance or len(response.preamble) != 1:
            wrong.append(f"{text}: {first}, {second}, {response!r}")

    def thread(cluster: ClusterManager, name: str) -> None:
        for n in range(turns):
            first = cluster.send("/add file")
            second = cluster.send(f"{name} {n}")
            check(name, n, first, second, cluster.read_any(timeout=60))

    async def task(cluster: ClusterManager, name: str) -> None:
        for n in range(turns):
            first = cluster.send("/add file")
            second = cluster.send(f"{name} {n}")
            # A read blocks its thread, so a task looks again.
            while (response := cluster.read_any(timeout=0)) is None:
                await asyncio.sleep(0.001)
            check(name, n, first, second, response)

    async def tasks(cluster: ClusterManager) -> None:
        await asyncio.gather(*(task(cluster, f"task-{t}") for t in range(200)))

    with launch_cluster("echo", count=8, cwd=tmp_path) as cluster:
        threads = [threading.Thread(target=thread, args=(cluster, f"thread-{t}")) for t in range(20)]
        began = time.monotonic()
        for each in threads:
            each.start()
        asyncio.run(tasks(cluster))
        for each in threads:
            each.join()
        assert cluster.get_status()["metrics"]["total_received"] == 220 * turns, time.monotonic() - began
    assert not wrong, wrong[:5]
