"""How clusters are used, on tools that need no model."""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import queue
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, as_completed
from pathlib import Path
from typing import Any

import pytest
from conftest import echo, eventually

import readyroom
from readyroom import (
    BadInput,
    ClusterExecutor,
    ClusterManager,
    Crashed,
    Job,
    NotReady,
    Orchestrator,
    QueueFull,
    ReadyroomError,
    Response,
    RoutingStrategy,
    TimedOut,
    launch_cluster,
)


def test_send_and_read() -> None:
    with launch_cluster("echo", count=2) as cluster:
        assert cluster.send("hello") == 0
        assert cluster.send("again") == 1
        texts = {cluster.read_any(timeout=30).text, cluster.read_any(timeout=30).text}
        assert texts == {"hello\n", "again\n"}
        assert cluster.read_any(timeout=0) is None


def test_a_pair_of_commands_is_one_turn(tmp_path: Path) -> None:
    file = tmp_path / "a file.txt"
    file.write_text("")
    with launch_cluster("echo", count=3, cwd=tmp_path) as cluster:
        first = cluster.send(f"/add {file}")
        assert cluster.send("/ask 'What is it?'") == first
        response = cluster.read_any(timeout=30)
        assert response is not None and response.ok and response.instance == first
        assert [reply.command for reply in response.preamble] == [f"/add {file}"]
        assert "What is it?" in response.text


def test_a_missing_file_is_told_and_not_answered(tmp_path: Path) -> None:
    with launch_cluster("echo", count=1, cwd=tmp_path) as cluster:
        cluster.send("/add nothing.py")
        acknowledgement = cluster.read_any(timeout=30)
        assert acknowledgement is not None and not acknowledgement.ok
        with pytest.raises(BadInput, match="nothing.py"):
            _ = acknowledgement.text
        assert str(acknowledgement).startswith("<failed: bad_input: ")


@pytest.mark.parametrize("size", range(1, 21))
def test_sizes(size: int) -> None:
    with launch_cluster("echo", size, wait="all") as cluster:
        health = cluster.check_health()
        assert (health["alive"], health["total"], health["dead"]) == (size, size, 0)
        assert [cluster.send(f"turn {n}") for n in range(size)] == list(range(size))
        instances = {cluster.read_any().instance for _ in range(size)}
        assert instances == set(range(size))


@pytest.mark.parametrize("routing", ["round_robin", "least_busy", "sticky", *RoutingStrategy])
def test_the_routings(routing: str) -> None:
    with launch_cluster("echo", count=3, routing=routing, wait="all") as cluster:
        places = [cluster.send(f"turn {n}") for n in range(6)]
        expected = {"sticky": [0] * 6}.get(str(routing), [0, 1, 2, 0, 1, 2])
        if str(routing) != "least_busy":
            assert places == expected
        assert sorted(cluster.read_any().text for _ in range(6)) == [f"turn {n}\n" for n in range(6)]
        keyed = {cluster.send("keyed", key="a key") for _ in range(4)}
        assert str(routing) != "sticky" or len(keyed) == 1


def test_many_sends_before_the_first_read() -> None:
    with launch_cluster("echo", count=4) as cluster:
        for n in range(436):
            cluster.send(f"turn {n}")
        assert {cluster.read_any().text for _ in range(436)} == {f"turn {n}\n" for n in range(436)}
        assert cluster.read_any(timeout=0) is None
        metrics = cluster.get_status()["metrics"]
        assert (metrics["total_sent"], metrics["total_received"]) == (436, 436)


def test_the_queue_has_a_limit() -> None:
    with launch_cluster("echo", count=1, max_pending=2) as cluster:
        cluster.send("one")
        cluster.send("two")
        with pytest.raises(QueueFull, match="max_pending"):
            cluster.send("three")
        assert cluster.read_any().ok
        cluster.send("three")


def test_futures() -> None:
    with launch_cluster("echo", count=3) as cluster:
        futures = [cluster.submit(f"job {n}") for n in range(9)]
        assert {future.result(timeout=30).text for future in as_completed(futures)} == {f"job {n}\n" for n in range(9)}
        late = cluster.submit(Job("@sleep 60000"))
        assert late.cancel() and late.cancelled()
        with pytest.raises(CancelledError):
            late.result()
        assert cluster.submit("and on").result(timeout=30).ok


def test_a_callback_may_wait_for_another_job() -> None:
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    with launch_cluster("echo", count=2) as cluster:

        def go_on(first: Future[Response]) -> None:
            answers.put(cluster.submit(f"after {first.result().text}").result().text)
            answers.put("".join(cluster.stream("and on")))

        cluster.submit("the first").add_done_callback(go_on)
        assert cluster.submit("@sleep 100").result(timeout=30).ok, "others end meanwhile"
        assert [answers.get(timeout=30), answers.get(timeout=30)] == ["after the first\n\n", "and on\n"]


def test_a_response_travels() -> None:
    with launch_cluster("echo", count=1) as cluster:
        answered = cluster.submit("@bytes ff6100e9").result(timeout=30)
        with pytest.raises(Crashed) as crashed:
            cluster.submit("last words\n@crash").result(timeout=30)
    again = pickle.loads(pickle.dumps(answered))
    assert (again.data, repr(again), again.timings) == (answered.data, repr(answered), answered.timings)
    error = copy.copy(pickle.loads(pickle.dumps(crashed.value)))
    assert error.exit == crashed.value.exit and "last words" in error.response.transcript
    with pytest.raises(Crashed):
        _ = error.response.text


def test_a_stream_waits_for_its_reader() -> None:
    """One that takes nothing while there are more events than are kept (where the machine is quick enough)."""
    code = "if 1:\n import os, time\n for n in range(10_000): _ = os.write(1, b'%d\\n' % n), time.sleep(1e-4)"
    with launch_cluster("python3", count=1, permissions="full") as cluster:
        pieces = cluster.stream(code)
        begun = next(pieces)
        cluster.drain()
        assert begun + "".join(pieces) == "".join(f"{n}\n" for n in range(10_000))


def test_a_failure_is_raised_by_its_kind() -> None:
    with launch_cluster("echo", count=1) as cluster:
        future = cluster.submit("@crash")
        error = future.exception(timeout=30)
        assert isinstance(error, Crashed) and error.retryable and error.exit
        with pytest.raises(TimedOut):
            cluster.submit("@sleep 60000", timeout=0.2).result()
        with pytest.raises(TimeoutError):
            cluster.submit("@sleep 60000", timeout=0.2).result()
        with pytest.raises(BadInput):
            cluster.send("")
        assert cluster.submit("and on").result(timeout=30).text == "and on\n"


def test_an_instance_is_restarted() -> None:
    with launch_cluster("echo", count=2, wait="all") as cluster:
        busy = cluster.submit("@sleep 300")
        cluster.restart_instance(0)
        assert busy.result(timeout=0).ok, "a turn that runs ends first"
        events = cluster.events()
        hanging = cluster.submit("@sleep 60000")
        at = next(event["instance"] for event in events if event["event"] == "turn_started")
        cluster.restart_instance(at, force=True)
        assert not hanging.exception(timeout=30).retryable
        assert [i["generation"] for i in cluster.get_status()["instances"]] != [1, 1]


def test_a_dead_instance_is_restarted(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    file = tmp_path / "moody.toml"
    text = echo("moody").replace("argv = [", f'argv = ["/bin/sh", "-c", "test ! -e {flag} && exec \\"$0\\"", ')
    file.write_text(text)
    cluster = launch_cluster("moody", count=1, wait="none", tool_files=[file])
    assert eventually(lambda: cluster.get_status()["instances"][0]["state"] == "quarantined")
    health = cluster.check_health()
    assert (health["alive"], health["total"], health["dead"]) == (0, 1, 1)
    flag.unlink()
    cluster.restart_instance(0)
    assert cluster.check_health()["alive"] == 1
    assert cluster.submit("hello").result(timeout=30).ok
    cluster.shutdown()


def test_none_becomes_ready() -> None:
    with pytest.raises(NotReady, match="no instance of crashing became ready") as caught:
        launch_cluster("crashing", count=2, ready_timeout=20)
    assert "no licence found" in str(caught.value)
    assert set(caught.value.instances) == {0, 1}
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.kind == "not_ready"


def test_a_block_drains_at_its_end_and_cancels_on_an_exception() -> None:
    with launch_cluster("echo", count=1) as cluster:
        future = cluster.submit("@sleep 300")
    assert future.result(timeout=0).ok
    with pytest.raises(ZeroDivisionError), launch_cluster("echo", count=1) as cluster:
        future = cluster.submit("@sleep 60000")
        1 / 0
    assert future.exception(timeout=10).kind == "cancelled"
    assert cluster.shutdown() == 0


def test_a_block_whose_end_is_interrupted_cancels_the_rest() -> None:
    def interrupt(events: Iterator[dict[str, Any]]) -> None:
        next(event for event in events if event["event"] == "turn_started")
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), launch_cluster("echo", count=1) as cluster:
        threading.Thread(target=interrupt, args=[cluster.events()]).start()
        future = cluster.submit("@sleep 60000")
    assert future.exception(timeout=10).kind == "cancelled"
    assert "down" in repr(cluster)


def test_shutdown_counts_what_it_drops() -> None:
    cluster = launch_cluster("echo", count=1)
    for _ in range(3):
        cluster.submit("@sleep 60000")
    assert cluster.shutdown() == 3
    assert cluster.shutdown() == 0
    assert "down" in repr(cluster)
    with pytest.raises(ReadyroomError):
        cluster.send("too late")


def test_a_forgotten_cluster_is_closed() -> None:
    cluster = launch_cluster("echo", count=1)
    pid = cluster.get_status()["instances"][0]["pid"]
    with pytest.warns(ResourceWarning, match="without shutdown"):
        cluster = launch_cluster("echo", count=1)
        gc.collect()
    assert eventually(lambda: not Path(f"/proc/{pid}").exists(), 5)
    pid = cluster.get_status()["instances"][0]["pid"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del cluster
        gc.collect()
    assert eventually(lambda: not Path(f"/proc/{pid}").exists(), 5)


def test_each_thread_reads_its_own() -> None:
    wrong: list[str] = []

    def work(cluster: ClusterManager, name: str) -> None:
        for n in range(50):
            cluster.send(f"{name} {n}")
            response = cluster.read_any(timeout=30)
            if response is None or response.text != f"{name} {n}\n":
                wrong.append(f"{name} {n}: {response}")

    with launch_cluster("echo", count=3) as cluster:
        threads = [threading.Thread(target=work, args=(cluster, f"thread {t}")) for t in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_thread_that_ends_frees_the_turn_that_it_left_open(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with launch_cluster("echo", count=1, routing="sticky", cwd=tmp_path) as cluster:
        thread = threading.Thread(target=cluster.send, args=("/add f",))
        thread.start()
        thread.join()
        del thread
        assert cluster.submit("next").result(timeout=10).ok


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"count": 0}, ValueError, "count must be 1 to 1024"),
        ({"count": "3"}, TypeError, "count must be an int, not str"),
        ({"count": True}, TypeError, "count must be an int"),
        ({"routing": "random"}, ValueError, "routing must be one of"),
        ({"context": 3}, TypeError, "context must be a string"),
        ({"permissions": "all"}, ValueError, "permissions must be one of"),
        ({"timeout": -1}, ValueError, "timeout must not be negative"),
        ({"timeout": "10"}, TypeError, "timeout must be a number of seconds"),
        ({"env": ["A=1"]}, TypeError, "env must be a mapping"),
        ({"env": {"A": 1}}, TypeError, r"env\['A'\] must be a string"),
        ({"cwd": 3}, TypeError, "cwd must be a path"),
        ({"cwd": "/no/such"}, BadInput, "/no/such"),
        ({"wait": "some"}, ValueError, "wait must be one of"),
        ({"max_pending": 0}, ValueError, "max_pending"),
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"tool": "no-such-tool"}, BadInput, "no-such-tool"),
        ({"tool": 3}, TypeError, "tool must be a string"),
    ],
)
def test_wrong_arguments_are_named(more: dict[str, object], error: type[Exception], words: str) -> None:
    arguments = {"tool": "echo", "count": 1, **more}
    with pytest.raises(error, match=words):
        launch_cluster(**arguments)


def test_wrong_calls_are_named() -> None:
    with launch_cluster("echo", count=1) as cluster:
        for call, error, words in [
            (lambda: cluster.send(b"x"), TypeError, "text must be a string, not bytes"),
            (lambda: cluster.send_to(1, "x"), ValueError, "instance must be 0 to 0"),
            (lambda: cluster.read_any("1"), TypeError, "timeout must be a number"),
            (lambda: cluster.submit("x", files="a.py"), TypeError, "files must be a list of paths"),
            (lambda: cluster.submit({"prompts": ["x"]}), ValueError, "a job has no field 'prompts'"),
            (lambda: cluster.submit(3), TypeError, "a job is a Job, a prompt or a mapping"),
            (lambda: cluster.restart_instance(7), ValueError, "index must be 0 to 0"),
            (lambda: pickle.dumps(cluster), TypeError, "can't be pickled"),
        ]:
            with pytest.raises(error, match=words):
                call()


def test_bytes_that_are_no_text() -> None:
    with launch_cluster("echo", count=1) as cluster:
        response = cluster.submit("@bytes ff6100e9").result(timeout=30)
        assert response.data == b"\xffa\x00\xe9"
        assert response.text.encode("utf-8", "surrogateescape") == response.data


def test_events_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="readyroom"):
        with launch_cluster("echo", count=1) as cluster:
            cluster.submit("@crash").exception(timeout=30)
            assert cluster.submit("and on").result(timeout=30).ok
    names = [record.event["event"] for record in caplog.records if record.name == "readyroom"]
    assert "instance_ended" in names and not any(name.startswith("turn_") for name in names)


def test_an_executor_is_one_of_the_standard_library() -> None:
    with ClusterExecutor("echo", 3) as executor:
        assert [r.text for r in executor.map("see {}".format, ["a", "b", "c"])] == ["see a\n", "see b\n", "see c\n"]
        future = executor.submit("hello")
        assert future.result().text == "hello\n"
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit("too late")
    executor = ClusterExecutor("echo", 1)
    futures = [executor.submit("@sleep 60000") for _ in range(3)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_an_orchestrator_groups_by_tool() -> None:
    with Orchestrator(count=2, permissions="full") as orchestrator:
        jobs = [
            Job("one", tool="echo"),
            {"tool": "python3", "prompt": "print(6 * 7)"},
            {"tool": "echo", "prompt": "two", "files": []},
            Job("@crash", tool="echo"),
        ]
        results = orchestrator.execute_jobs(jobs)
        assert [str(r)[:14] for r in results] == ["one\n", "42\n", "two\n", "<failed: crash"]
        assert list(orchestrator._tool_pools) == ["echo"], "one job alone needs no pool"
        pool = orchestrator._tool_pools["echo"]
        assert orchestrator.execute_jobs([Job("three", tool="echo")])[0].text == "three\n"
        assert orchestrator._tool_pools["echo"] is pool
        with pytest.raises(ValueError, match="names no tool"):
            orchestrator.execute_jobs([Job("four")])
    assert not orchestrator._tool_pools


def test_an_exception_ends_what_an_orchestrator_launches(sleepy: Path) -> None:
    orchestrator = Orchestrator(tool_files=[sleepy], ready_timeout=3600)
    began = time.monotonic()
    with pytest.raises(BadInput, match="no-such-tool"):
        orchestrator.execute_jobs([Job("x", tool=tool) for tool in ("no-such-tool", "sleepy", "sleepy")])
    assert time.monotonic() - began < 600 and not orchestrator._tool_pools
    assert orchestrator.execute_jobs([Job("and on", tool="echo")])[0].text == "and on\n"


def test_versions_agree() -> None:
    assert readyroom.__version__ == readyroom._core.__version__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with launch_cluster("echo", count=1):
            pass
