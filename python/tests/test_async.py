"""Clusters in asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from conftest import starting

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


def test_cancelling_a_stream_cancels_its_turn() -> None:
    async def main() -> None:
        async with AsyncCluster("echo", 1) as cluster:
            pieces = cluster.stream("first\n@sleep 60000")
            assert await anext(pieces) == "first\n"
            rest = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            rest.cancel()
            with pytest.raises(asyncio.CancelledError):
                await rest
            assert (await cluster.ask("and on")).text == "and on\n"
            with pytest.raises(Crashed):
                assert [piece async for piece in cluster.stream("last words\n@crash")] == ["last words\n"]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_streams_hold_no_threads() -> None:
    async def main() -> None:
        async with AsyncCluster("echo", 40) as cluster:
            streams = [cluster.stream("first\n@sleep 60000") for _ in range(40)]
            assert await asyncio.gather(*map(anext, streams)) == ["first\n"] * 40
            rest = [asyncio.ensure_future(anext(stream)) for stream in streams]
            assert (await cluster.get_status())["running"] == 40
            for each in rest:
                each.cancel()
            await asyncio.wait(rest)
            assert (await cluster.ask("and on")).ok

    asyncio.run(asyncio.wait_for(main(), 60))


def test_responses_go_to_several_readers_and_loops() -> None:
    cluster = AsyncCluster("echo", 2)

    async def read() -> list[str]:
        return [str(response) async for response in cluster.responses()]

    async def two_readers() -> list[str]:
        await cluster.launch()
        for n in range(5):
            cluster.submit(f"job {n}")
        cluster.submit("@sleep 60000").cancel()
        first, second = await asyncio.gather(read(), read())
        cluster.submit("@crash")
        cluster.submit("the last")
        return first + second

    async def another_loop() -> list[str]:
        assert (await cluster.ask("another loop")).ok
        found = await read()
        await cluster.shutdown()
        return found

    found = asyncio.run(asyncio.wait_for(two_readers(), 60))
    assert sorted(found) == [f"job {n}\n" for n in range(5)]
    found = asyncio.run(asyncio.wait_for(another_loop(), 60))
    assert sorted(text[:14] for text in found) == ["<failed: crash", "the last\n"]


def test_a_cancelled_wait_ends(surroundings: Path, sleepy: Path) -> None:
    async def cancelled(wait: Coroutine[Any, Any, object], *, once: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.create_task(wait)
        await once()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> None:
        async with AsyncCluster("echo", 1) as cluster:

            async def runs() -> None:
                while (await cluster.get_status())["running"] == 0:
                    await asyncio.sleep(0.01)

            turn = cluster.submit("@sleep 60000")
            await cancelled(cluster.drain(), once=runs)
            await cancelled(cluster.restart_instance(0), once=runs)
            turn.cancel()

        async def block() -> None:
            nonlocal cluster
            async with AsyncCluster("echo", 1) as cluster:
                cluster.submit("@sleep 60000")

        async def has_begun() -> None:
            while cluster._cluster is None or "down" in repr(cluster):
                await asyncio.sleep(0.01)
            await runs()

        await cancelled(block(), once=has_begun)
        assert "down" in repr(cluster)
        launch = AsyncCluster("sleepy", tool_files=[sleepy]).launch()
        await cancelled(launch, once=lambda: asyncio.to_thread(starting, surroundings))

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 45, "the loop's end waits for its threads"


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
