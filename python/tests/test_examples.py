"""The examples and the guide's snippets run, on real aider."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY, Model, block

import readyroom

SNIPPETS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/guide.md").read_text(), re.DOTALL)
ANSWER = "It does one thing.\n"


@pytest.fixture
def files(aider: Path, model: Model) -> list[str]:
    """Files to work on; a model that adds type hints, and answers questions."""
    names = ["a.py", "b.py"]
    for name in (*names, "my_file.py"):
        (aider / name).write_text(f"def {name[0]}(x):\n    return x\n")
        edit = block(name, f"def {name[0]}(x):\n", f"def {name[0]}(x: int) -> int:\n")
        model.on(f"def {name[0]}(x):", edit)
    model.otherwise(ANSWER)
    return names


def hinted(file: str) -> bool:
    return f"def {file[0]}(x: int) -> int:\n" in Path(file).read_text()


class BaseAdapter:
    def invoke(self, request: Any) -> str:
        return "one shot"


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_the_guides_snippets(number: int, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = SNIPPETS[number]
    names: dict[str, Any] = {
        "files": files,
        "prompt": "Add type hints",
        "request": SimpleNamespace(file="my_file.py", prompt="Add type hints"),
        "BaseAdapter": BaseAdapter,
        "launch_cluster": readyroom.launch_cluster,
    }
    adapter = BaseAdapter()
    if "pooled =" in code:
        names["adapter"] = adapter
    if code.startswith("health ="):
        names["cluster"] = readyroom.launch_cluster("aider", count=1)
    exec(compile(code, f"snippet {number}", "exec"), names)
    if isinstance(cluster := names.get("cluster"), readyroom.ClusterManager):
        cluster.shutdown()
    if "result" in names and isinstance(names["result"], readyroom.Response):
        assert names["result"].ok and hinted("my_file.py")
    if "/code" in code:
        assert hinted("my_file.py") or all(map(hinted, files)), capsys.readouterr().out
    if "results" in names:
        assert all(result.ok for result in names["results"])
    if "again" in names:
        assert names["result"].ok and all(map(hinted, files)) and len(names["again"]) == 0


def example(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / name, *arguments], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_parallel_refactor(files: list[str]) -> None:
    out = example("parallel_refactor.py", "Add type hints", *files)
    assert all(map(hinted, files)) and "instance" in out


def test_batch_refactor(files: list[str]) -> None:
    assert "2 of 2 succeeded" in example("batch_refactor.py", "Add type hints", *files)
    assert all(map(hinted, files))
    assert "0 of 0 succeeded" in example("batch_refactor.py")


def test_adapter(files: list[str]) -> None:
    out = example("adapter.py", "Add type hints", *files)
    assert all(map(hinted, files)) and "'total_sent': 2" in out


def test_executor(files: list[str], model: Model) -> None:
    model.on("What does this file do", ANSWER)
    out = example("executor.py", *files)
    assert sorted(out.splitlines()) == [f"{file}: {ANSWER.strip()}" for file in files]


def test_asyncio_agents(files: list[str], model: Model) -> None:
    model.on("Review the type hints", ANSWER)
    out = example("asyncio_agents.py", *files)
    assert sorted(out.splitlines()) == [f"{file}: {ANSWER.strip()}" for file in files]
    assert all(map(hinted, files))
