"""Batches from Python: durable, resumable, told job by job."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from conftest import gone, python

from readyroom import BadInput, Crashed, Job, NotReady, Outcome, resume, run_batch


def test_outcomes_come_in_the_jobs_order() -> None:
    seen: list[Outcome] = []
    jobs = [Job("@sleep 300", id="slow"), "quick", {"prompt": ["one", "two"], "id": "pair"}, Job("@crash", id="bad")]
    result = run_batch(jobs, tool="echo", instances=2, progress=False, on_outcome=seen.append)
    assert not result.ok and result.status == 1 and result.batch
    assert [outcome.id for outcome in result] == ["slow", None, "pair", "bad"]
    assert [outcome.answer for outcome in result][1:3] == ["quick\n", "two\n"]
    assert [outcome.id for outcome in result.failed] == ["bad"] and isinstance(result[3].error, Crashed)
    assert sorted(outcome.job for outcome in seen) == [1, 2, 3, 4]
    again = resume(result.batch, failed=True, progress=False)
    assert [outcome.id for outcome in again] == ["bad"]


def test_a_killed_batch_is_resumed(surroundings: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    program = python(
        f"""
import readyroom
from readyroom import Job
jobs = [Job(f"@sleep 100\\nturn {{n}}", id=f"job {{n}}") for n in range(20)]
readyroom.run_batch(jobs, tool="echo", instances=2, permissions="read", journal={str(journal)!r},
                    progress=False, on_outcome=lambda outcome: print(outcome.id, flush=True))
"""
    )
    assert program.stdout is not None
    told = [program.stdout.readline().strip() for _ in range(4)]
    program.send_signal(signal.SIGKILL)
    told += program.communicate()[0].splitlines()
    # Its command is on its way down, and holds the batch until then.
    assert not gone(surroundings)
    result = resume(journal=journal, progress=False)
    assert result.ok and len(result) > 0
    assert not {outcome.id for outcome in result} & set(told)
    assert len(resume(result.batch, journal=journal, progress=False)) == 0


def test_a_crash_is_tried_again(tmp_path: Path) -> None:
    # Under `read` nothing can have been changed, so that a further attempt does no harm.
    prompt = f"@crash-until 1 {tmp_path / 'crashed'}"
    assert run_batch([prompt], tool="echo", permissions="read", progress=False)[0].answer == "fine\n"
    (tmp_path / "crashed").unlink()
    assert not run_batch([prompt], tool="echo", permissions="read", retries=0, progress=False).ok


def test_what_is_wrong_is_raised() -> None:
    with pytest.raises(BadInput, match="no-such-tool"):
        run_batch(["x"], tool="no-such-tool", progress=False)
    with pytest.raises(BadInput, match="id"):
        run_batch([Job("x", id="a"), Job("y", id="a")], tool="echo", progress=False)
    with pytest.raises(BadInput, match="no batch"):
        resume("nowhere", progress=False)
    with pytest.raises(TypeError, match="instances must be an int"):
        run_batch(["x"], tool="echo", instances="3")
    with pytest.raises(ValueError, match="mode"):
        run_batch([Job("x", mode="ask")], tool="echo")
    result = run_batch(["x"], tool="crashing", progress=False)
    assert result.status == 3 and isinstance(result[0].error, NotReady)


def test_an_exception_in_the_callback_stops_the_batch() -> None:
    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_batch(["one", "@sleep 60000"], tool="echo", instances=2, progress=False, on_outcome=fail)


def test_a_bar_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_batch(["one", "two"], tool="echo", progress=True).ok
    assert "2/2" in capfd.readouterr().err


def test_jobs_in_worktrees_have_to_prove_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["init", "-q"], ["config", "user.name", "me"], ["config", "user.email", "me@localhost"]):
        subprocess.run(["git", *command], check=True)
    for name in ("a", "b"):
        (tmp_path / name).write_text("old\n")
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", "commit", "-qm", "first"], check=True)
    jobs = [Job(f"@edit {name} new", id=name, files=[]) for name in ("a", "b")]
    result = run_batch(jobs, tool="echo", workspace="worktree", require_change=True, verify="grep -q new a b", progress=False)
    assert result.ok, result
    assert [outcome.change["state"] for outcome in result] == ["applied", "applied"]
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["new\n", "new\n"]
    assert not run_batch(["nothing"], tool="echo", workspace="worktree", require_change=True, progress=False).ok
    schema = {"type": "object", "required": ["n"]}
    fits = run_batch(['it is {"n": 5}'], tool="echo", schema=schema, permissions="read", name="once", progress=False)
    assert fits[0].value == {"n": 5}
    assert len(run_batch(['it is {"n": 5}'], tool="echo", permissions="read", name="once", progress=False)) == 0
    for wrong in ({"workspace": "elsewhere"}, {"budget_usd": 0}, {"budget_tokens": 0}):
        with pytest.raises(ValueError):
            run_batch(["x"], tool="echo", **wrong)
