"""The guide that the project started from: every block runs on real aider as it stands, only the prefix of the imports
is replaced, and the names that it leaves open are supplied.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Model, block

import readyroom

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parent / "guide_blocks.md").read_text(), re.DOTALL)
PREFIX = "phase4_routing.modules.aim_tools.src.aim."
ANSWER = "The answer of the model:\n\n    def f(a: int) -> int\n"


class ExistingAdapter:
    """An adapter of the guide's world: one process for each request."""

    tool_id = "aider"

    def invoke(self, request: Any) -> str:
        return "one shot"


@pytest.fixture
def names(aider: Path, model: Model) -> dict[str, Any]:
    """The names that blocks leave open."""
    model.otherwise(ANSWER)
    files = [f"file_{n}.py" for n in range(3)]
    for file in (*files, "my_file.py"):
        (aider / file).write_text("def f(a):\n    return a\n")
    return {
        "launch_cluster": readyroom.launch_cluster,
        "PoolAwareMixin": readyroom.PoolAwareMixin,
        "ExistingAdapter": ExistingAdapter,
        "BaseAdapter": ExistingAdapter,
        "AiderAdapter": ExistingAdapter,
        "request": SimpleNamespace(file="my_file.py", prompt="/ask 'Add type hints'", timeout=60),
        "files": files,
        "prompt": "Add type hints",
        "subprocess": subprocess,
    }


def run(number: int, names: dict[str, Any]) -> dict[str, Any]:
    code = BLOCKS[number].replace(PREFIX, "readyroom.")
    exec(compile(code, f"block {number}", "exec"), names)
    return names


def test_all_blocks_are_run() -> None:
    assert len(BLOCKS) == 17


def test_quick_start(names: dict[str, Any]) -> None:
    assert run(0, names)["response"].text == ANSWER


def test_mixin(names: dict[str, Any]) -> None:
    run(1, names)
    assert names["result"].ok and "my_file.py" in names["result"].text, "it reads the acknowledgement of /add"
    adapter = names["adapter"]
    adapter.disable_pool()
    assert adapter.invoke(names["request"]) == "one shot"


def test_wrapper(names: dict[str, Any]) -> None:
    names["request"].prompt = "Add type hints"
    run(2, names)
    assert names["result"].text == ANSWER
    assert isinstance(names["pool_adapter"], ExistingAdapter)
    names["pool_adapter"].close()


def test_orchestrator(names: dict[str, Any]) -> None:
    run(3, names)
    own = {name: value for name, value in vars(names["Orchestrator"]).items() if callable(value)}
    mine = type("Mine", (readyroom.Orchestrator,), own)()
    jobs = [{"tool": "aider", "prompt": "Add type hints", "files": [file]} for file in names["files"]]
    assert [response.text for response in mine.execute_jobs(jobs)] == [ANSWER] * 3
    mine.close()
    assert [response.text for response in mine.execute_jobs(jobs[:1])] == [ANSWER]
    mine.close()


def test_before(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIDER_YES_ALWAYS", "true")
    monkeypatch.setenv("AIDER_ANALYTICS", "false")
    monkeypatch.setenv("AIDER_CHECK_UPDATE", "false")
    monkeypatch.setenv("AIDER_SHOW_RELEASE_NOTES", "false")
    names["files"] = names["files"][:1]
    run(4, names)


def test_after(names: dict[str, Any]) -> None:
    cluster = run(5, names)["cluster"]
    assert [cluster.read_any(timeout=60).text for _ in names["files"]] == [ANSWER] * 3
    cluster.shutdown()


def test_rollout(names: dict[str, Any]) -> None:
    run(6, names)
    assert names["response"].text == ANSWER


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_sizing_and_routing(names: dict[str, Any]) -> None:
    assert run(7, names)["cluster"].count == 20
    assert run(8, names)["cluster"].routing == "sticky"
    names["cluster"].shutdown()


def test_error_handling(names: dict[str, Any]) -> None:
    run(9, names)
    assert sorted(re.findall(r"file_\d\.py", "".join(result.text for result in names["results"]))) == names["files"]


def test_monitoring(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with readyroom.launch_cluster("aider", count=1) as cluster:
        names["cluster"] = cluster
        run(10, names)
    assert capsys.readouterr().out == "1/1 alive\nSent: 0\nReceived: 0\n"


def test_migration(names: dict[str, Any]) -> None:
    run(11, names)
    adapter = run(12, names)["AiderAdapter"]()
    adapter.use_pool(count=1)
    assert adapter.invoke({"prompt": "Add type hints", "file": "my_file.py"}).text == ANSWER
    adapter.disable_pool()
    with readyroom.Orchestrator(count=2) as orchestrator:
        names |= {"orchestrator": orchestrator, "jobs": [{"tool": "aider", "prompt": "Add type hints"}] * 2}
        run(13, names)


def test_troubleshooting(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(14, names)
    assert "detectCommands" in capsys.readouterr().out
    names["cluster"] = readyroom.launch_cluster("aider", count=1)
    names["cluster"].send("/ask 'What is it?'")
    run(15, names)
    assert names["response"].text == ANSWER
    with pytest.raises(TypeError, match="text must be a string, not ellipsis"):
        run(16, names)
    assert names["cluster"].shutdown() == 0, "the block has shut it down"


def test_a_real_edit(aider: Path, model: Model) -> None:
    (aider / "a.py").write_text("def f(a):\n    return a\n")
    edit = block("a.py", "def f(a):\n", "def f(a: int) -> int:\n")
    model.on("hint-the-types", edit)
    with readyroom.launch_cluster("aider", count=1) as cluster:
        cluster.send("/add a.py")
        cluster.send("/ask 'hint-the-types?'")
        assert cluster.read_any(timeout=60).text == edit
        assert (aider / "a.py").read_text() == "def f(a):\n    return a\n", "/ask never edits"
        cluster.send("/add a.py")
        cluster.send("/code hint-the-types")
        response = cluster.read_any(timeout=60)
    assert response.changed_files == ("a.py",)
    assert (aider / "a.py").read_text() == "def f(a: int) -> int:\n    return a\n"
