"""However a program ends, nothing of it is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import eventually, gone, processes, python, starting

from readyroom import launch_cluster

LAUNCH = """
import logging, os, sys, time, readyroom

class Begun(logging.Handler):
    def emit(self, record):
        if record.event["event"] == "turn_started":
            print("begun", flush=True)

logging.getLogger("readyroom").addHandler(Begun())
logging.getLogger("readyroom").setLevel(logging.DEBUG)
cluster = readyroom.launch_cluster("echo", count=2, wait="all")
print("ready", flush=True)
"""


def started(code: str) -> subprocess.Popen[str]:
    """A program that has launched its instances."""
    program = python(LAUNCH + code)
    assert program.stdout is not None and program.stderr is not None
    line = program.stdout.readline()
    assert line == "ready\n", line + program.stderr.read()
    return program


def test_the_check_sees_what_is_planted(surroundings: Path) -> None:
    planted = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        # It is told as started a moment before its environment can be read.
        found = eventually(lambda: processes(surroundings))
        assert [pid for pid, _ in found] == [planted.pid]
    finally:
        planted.kill()
        planted.wait()


BLOCKING = {
    "read_any": "cluster.send('@sleep 60000'); cluster.read_any(timeout=60)",
    "read": "cluster.send_to(0, '@sleep 60000'); cluster.read(0, timeout=60)",
    "result": "cluster.submit('@sleep 60000').result()",
    "stream": "list(cluster.stream('@sleep 60000'))",
    "drain": "cluster.submit('@sleep 60000'); cluster.drain()",
    "restart": "cluster.send_to(0, '@sleep 60000'); cluster.restart_instance(0)",
    "events": "cluster.submit('@sleep 60000'); list(cluster.events())",
    "executor": "list(readyroom.ClusterExecutor('echo', 1).map(str, ['@sleep 60000']))",
    "orchestrator": "readyroom.Orchestrator().execute_jobs([{'tool': 'echo', 'prompt': '@sleep 60000'}])",
    "run_batch": "readyroom.run_batch(['@sleep 60000'], tool='echo', progress=False)",
    "block": "\nwith cluster: cluster.submit('@sleep 60000')",
    "async": "\nimport asyncio\nasync def main():\n  async with readyroom.AsyncCluster('echo', 1) as c: await c.ask('@sleep 60000')\nasyncio.run(main())",
    "launch": "readyroom.launch_cluster('sleepy', count=1, tool_files=[os.environ['SLEEPY']])",
    "launch in asyncio": "import asyncio\nasyncio.run(readyroom.AsyncCluster('sleepy', tool_files=[os.environ['SLEEPY']]).launch())",
    "launch by an orchestrator": """
jobs = [{'tool': 'sleepy', 'prompt': 'x'}] * 2
readyroom.Orchestrator(tool_files=[os.environ['SLEEPY']]).execute_jobs(jobs)""",
}


@pytest.mark.parametrize("call", BLOCKING)
def test_ctrl_c_ends_each_wait(call: str, surroundings: Path, sleepy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEPY", str(sleepy))
    program = started(BLOCKING[call])
    assert program.stdout is not None
    if "launch" in call:
        assert starting(surroundings)
    elif call == "run_batch":
        # Its own two instances, and one of the batch's.
        echo = "readyroom-echo"
        assert eventually(lambda: sum(echo in words for _, words in processes(surroundings)) > 2)
    else:
        assert program.stdout.readline() == "begun\n"
    began = time.monotonic()
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors, errors
    assert time.monotonic() - began < 20, errors
    assert not gone(surroundings)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(3)", 3),
        ("", 0),
        ("cluster.submit('@sleep 60000')\n1 / 0", 1),
        ("os._exit(4)", 4),
        ("cluster.submit('@stray').result(); os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.abort()", -6),
    ],
)
def test_a_program_that_ends(end: str, status: int, surroundings: Path) -> None:
    program = started(end)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == status, errors
    assert not gone(surroundings, 2)


def test_a_batch_ends_with_its_program(surroundings: Path) -> None:
    program = started("readyroom.run_batch(['@sleep 60000'] * 3, tool='echo', progress=False)")
    assert eventually(lambda: any("readyroom run" in words for _, words in processes(surroundings)))
    program.kill()
    program.communicate()
    assert not gone(surroundings, 8)


def test_fork_says_what_to_do(surroundings: Path) -> None:
    program = started(
        """
child = os.fork()
if child == 0:
    try:
        cluster.send("hello")
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(cluster.submit("the parent goes on").result(timeout=30).text, end="", flush=True)
"""
    )
    out, errors = program.communicate(timeout=30)
    assert "spawn" in out and out.endswith("the parent goes on\n"), out + errors
    assert not gone(surroundings)


def test_a_forked_child_holds_nothing_up(surroundings: Path) -> None:
    program = started(
        """
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    )
    assert program.stdout is not None
    child = int(program.stdout.readline())
    program.kill()
    program.wait()
    alone = eventually(lambda: [pid for pid, _ in processes(surroundings)] == [child], 2)
    os.kill(child, signal.SIGKILL)
    assert alone


def test_spawned_processes_have_clusters_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        """
import multiprocessing, readyroom

def work(n):
    with readyroom.launch_cluster("echo", count=1) as cluster:
        return cluster.submit(f"job {n}").result(timeout=30).text

if __name__ == "__main__":
    with readyroom.launch_cluster("echo", count=1):
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            print("".join(sorted(pool.map(work, range(3)))), end="")
"""
    )
    import sys

    done = subprocess.run([sys.executable, tmp_path / "work.py"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "job 0\njob 1\njob 2\n", done.stderr


def test_read_any_is_prompt_whatever_the_others_do() -> None:
    with launch_cluster("echo", count=8, wait="all") as cluster:
        for n in range(7):
            cluster.send_to(n, "@sleep 60000")
        cluster.send_to(7, "quick")
        response = cluster.read_any(timeout=30)
        assert response is not None and response.text == "quick\n"
        cluster.shutdown()
