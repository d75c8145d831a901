"""Batches: many jobs, kept in the journal, that can be killed at any moment and resumed.

    >>> jobs = [Job(f"print({n})", id=f"job {n}") for n in range(3)]
    >>> result = run_batch(jobs, tool="python3", instances=2, permissions="full", progress=False)
    >>> [outcome.answer for outcome in result], result.ok
    (['0\\n', '1\\n', '2\\n'], True)
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Union

from . import _binary, _checks
from .errors import BadInput, NotReady, ReadyroomError, _of
from .job import Job
from .response import Timings, Usage

__all__ = ["BatchResult", "Outcome", "resume", "run_batch"]

_Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job of a batch.

    >>> Outcome(job=1, outcome="succeeded", answer="done").ok
    True
    """

    #: Its number, from 1.
    job: int
    #: ``succeeded``, ``failed``, ``cancelled``, ``timed_out`` or ``lost``.
    outcome: str
    #: The answer; None where the tool said nothing.
    answer: str | None = None
    id: str | None = None
    tool: str = ""
    files: Sequence[str] = ()
    #: Why it did not succeed.
    error: ReadyroomError | None = None
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    instance: int | None = None
    generation: int | None = None
    #: The value in its answer that fits its schema.
    value: Any = None
    #: What it changed in its worktree: ``state`` (``pending``, ``applied``, ``conflict``, ``kept``), ``branch``, ``base`` and
    #: ``files``; None where it had none, or changed nothing.
    change: Mapping[str, Any] | None = None
    #: The whole line, as ``docs/outcome.schema.json`` describes it.
    record: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.outcome == "succeeded"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Outcome:
        """An outcome from a line of ``readyroom run --json``."""
        seconds, usage = record["seconds"], record["usage"]
        return cls(
            job=record["job"],
            outcome=record["outcome"],
            answer=_text(record["answer"]),
            id=record["id"],
            tool=record["tool"],
            files=tuple(record["files"]),
            error=_error(record["failure"]),
            usage=Usage(usage.get("input_tokens"), usage.get("output_tokens"), usage.get("cost_usd")),
            timings=Timings(seconds["queued"], seconds["turn"], seconds["reset"]),
            instance=record["instance"],
            generation=record["generation"],
            value=record["value"],
            change=record["change"],
            record=record,
        )


@dataclass(frozen=True)
class BatchResult(Sequence[Outcome]):
    """The outcomes of a batch, in the jobs' order.

    >>> BatchResult(None, (), 0).ok
    True
    """

    #: The batch's id, for :func:`resume`; None where no journal is kept, or nothing was left to run.
    batch: str | None
    outcomes: Sequence[Outcome]
    #: The command's exit status: 0 all succeeded, 1 some did not, 4 it stopped early.
    status: int

    @property
    def ok(self) -> bool:
        """Whether all jobs succeeded."""
        return self.status == 0

    @property
    def failed(self) -> Sequence[Outcome]:
        """The outcomes of jobs that did not succeed."""
        return tuple(outcome for outcome in self.outcomes if not outcome.ok)

    def __getitem__(self, at: Any) -> Any:
        return self.outcomes[at]

    def __len__(self) -> int:
        return len(self.outcomes)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)


def run_batch(
    jobs: Iterable[str | Job | Mapping[str, Any]],
    *,
    tool: str | None = None,
    instances: int = 3,
    routing: str = "least_busy",
    context: str = "fresh",
    permissions: str = "edit",
    model: str | None = None,
    cwd: _Path | None = None,
    timeout: float | None = 600,
    max_failures: int | None = None,
    retries: int = 3,
    on_limit: str = "wait",
    workspace: str = "shared",
    verify: str | None = None,
    schema: Mapping[str, Any] | None = None,
    require_change: bool = False,
    only_files: bool = False,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    name: str | None = None,
    journal: _Path | None = None,
    tool_files: Iterable[_Path] = (),
    args: Iterable[str] = (),
    progress: bool | None = None,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> BatchResult:
    """Runs jobs as a batch, as ``readyroom run`` does: every outcome is durable before it is reported, and what is not
    done can be resumed, whatever ends this process.

    :param retries: how often a job is tried again when its instance crashes, or its model fails.
    :param on_limit: when a usage limit is reached: ``wait`` until it is over, or ``stop``, to be resumed.
    :param workspace: ``shared``: all work in the directory; ``worktree``: each instance in a git worktree of its own, and what a
        job changed comes to the directory when it has succeeded.
    :param verify: a shell command that has to succeed after each job; ``$1`` is the job's file. Its failure goes back to the tool.
    :param schema: a JSON Schema; the answer has to hold a value that fits, which is the outcome's ``value``.
    :param require_change: a job that changes nothing has failed; needs worktrees.
    :param only_files: a job that changes other files than its own has failed; needs worktrees.
    :param budget_usd: nothing more is started once the batch has cost so much, as far as its tools tell.
    :param budget_tokens: the same in tokens.
    :param name: a name for the batch; where there is one of this name, only jobs run that it does not have yet.
    :param progress: a bar (tqdm, where it is installed); by default where stderr is a terminal.
    :param on_outcome: called with each outcome as it comes.
    :raises BadInput: the jobs or the options can't be used; nothing was started.
    :raises NotReady: no instance became ready.

    >>> run_batch(["print(6 * 7)"], tool="python3", permissions="full", progress=False)[0].answer
    '42\\n'
    """
    all_jobs = [Job.of(job) for job in jobs]
    command = ["run", "--from", "-", "--json", "-", "--instances", str(_checks.whole("instances", instances, 1, 1024))]
    command += ["--routing", _checks.one_of("routing", routing, ("round_robin", "least_busy", "sticky"))]
    command += ["--context", _checks.one_of("context", context, ("fresh", "keep"))]
    command += ["--permissions", _checks.one_of("permissions", permissions, ("read", "edit", "full"))]
    seconds = _checks.optional_seconds("timeout", timeout)
    command += ["--timeout", "none" if seconds is None else f"{seconds:f}s"]
    if tool is not None:
        command += ["--tool", _checks.text("tool", tool)]
    if model is not None:
        command += ["--model", _checks.text("model", model)]
    if max_failures is not None:
        command += ["--max-failures", str(_checks.whole("max_failures", max_failures, 1, 2**31))]
    command += ["--retries", str(_checks.whole("retries", retries, 0, 2**31))]
    command += ["--on-limit", _checks.one_of("on_limit", on_limit, ("wait", "stop"))]
    command += ["--workspace", _checks.one_of("workspace", workspace, ("shared", "worktree"))]
    command += [flag for flag, wanted in (("--require-change", require_change), ("--only-files", only_files)) if wanted]
    if verify is not None:
        command.append(f"--verify={_checks.text('verify', verify)}")
    if budget_usd is not None:
        command += ["--budget-usd", f"{_checks.dollars('budget_usd', budget_usd):f}"]
    if budget_tokens is not None:
        command += ["--budget-tokens", str(_checks.whole("budget_tokens", budget_tokens, 1, 2**63 - 1))]
    if name is not None:
        command += ["--batch", _checks.text("name", name)]
    for file in _checks.paths("tool_files", tool_files):
        command += ["--tools", file]
    for arg in _checks.words("args", args):
        command.append(f"--tool-arg={arg}")
    directory = None if cwd is None else _checks.path("cwd", cwd)
    if directory is not None:
        command += ["--directory", directory]
    lines = "".join(json.dumps(_line(job)) + "\n" for job in all_jobs)
    with tempfile.NamedTemporaryFile("w", suffix=".schema.json", encoding="utf-8") as file_of_schema:
        if schema is not None:
            json.dump(schema, file_of_schema)
            file_of_schema.flush()
            command += ["--schema", file_of_schema.name]
        return _run(command, lines, len(all_jobs), journal, progress, on_outcome)


def resume(
    batch: str | None = None,
    *,
    failed: bool = False,
    lost: bool = False,
    instances: int | None = None,
    journal: _Path | None = None,
    progress: bool | None = None,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> BatchResult:
    """Goes on with a batch: the named one, or the last of this directory. Runs what was never run; with ``failed`` also
    what failed, with ``lost`` also what may have been done in part when its run ended.

    >>> from readyroom import resume, run_batch
    >>> done = run_batch(["print(1)"], tool="python3", permissions="full", progress=False)
    >>> len(resume(done.batch, progress=False))
    0
    """
    command = ["resume", "--json", "-"]
    command += [flag for flag, wanted in (("--failed", failed), ("--lost", lost)) if wanted]
    if instances is not None:
        command += ["--instances", str(_checks.whole("instances", instances, 1, 1024))]
    if batch is not None:
        command += ["--", _checks.text("batch", batch)]
    return _run(command, "", None, journal, progress, on_outcome)


def _line(job: Job) -> dict[str, Any]:
    """A job as a line of ``--from``."""
    line: dict[str, Any] = {"prompts": list(job.prompts), "files": [os.fsdecode(file) for file in job.files]}
    for name in ("id", "tool", "key", "timeout"):
        value = getattr(job, name)
        if value is not None:
            line[name] = value
    if job.mode != "default":
        raise ValueError(f"mode: a job of a batch has the tool's own mode, not {job.mode!r}")
    return line


def _run(
    command: list[str],
    lines: str,
    total: int | None,
    journal: _Path | None,
    progress: bool | None,
    on_outcome: Callable[[Outcome], object] | None,
) -> BatchResult:
    at = 1
    if journal is not None:
        command[at:at] = ["--journal", os.path.abspath(_checks.path("journal", journal))]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as told:
        given.write(lines.encode())
        given.seek(0)
        # In a session of its own, so that a Ctrl-C reaches it once, by us. When we die, its stdout closes, and it stops.
        process = subprocess.Popen(
            [os.fspath(_binary.path()), *command], stdin=given, stdout=subprocess.PIPE, stderr=told, start_new_session=True
        )
        assert process.stdout is not None
        outcomes: list[Outcome] = []
        try:
            with _bar(total, progress) as bar:
                for outcome in _outcomes(process.stdout):
                    outcomes.append(outcome)
                    bar.update()
                    if on_outcome is not None:
                        on_outcome(outcome)
            status = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.stdout.close()
            process.wait()
            raise
        finally:
            process.stdout.close()
        told.seek(0)
        words = told.read().decode(errors="replace").strip()
    if status in (2, 3) and not outcomes:
        kind = BadInput if status == 2 else NotReady
        raise kind(words.removeprefix("error: ") or f"readyroom ended with status {status}")
    outcomes.sort(key=lambda outcome: outcome.job)
    batch = next((outcome.record["batch"] for outcome in outcomes), None)
    return BatchResult(batch, tuple(outcomes), status)


def _outcomes(lines: IO[bytes]) -> Iterator[Outcome]:
    for line in lines:
        yield Outcome.of(json.loads(line))


def _text(answer: Any) -> str | None:
    if isinstance(answer, Mapping):
        return base64.b64decode(answer["base64"]).decode("utf-8", "surrogateescape")
    return None if answer is None else str(answer)


def _error(failure: Any) -> ReadyroomError | None:
    if failure is None:
        return None
    more = failure.get("resets_at")
    parts = (failure["kind"], failure["message"], failure["evidence"], failure["retryable"])
    return _of((*parts, failure["origin"] or "caller", failure.get("retry_after_seconds"), more))


class _NoBar:
    """Stands in where no bar is shown."""

    def update(self) -> None:
        pass

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _bar(total: int | None, progress: bool | None) -> Any:
    wanted = sys.stderr.isatty() if progress is None else progress
    if not wanted:
        return _NoBar()
    try:
        from tqdm import tqdm
    except ImportError:
        if progress:
            raise ImportError("a progress bar needs tqdm: install readyroom[progress], or give progress=False") from None
        return _NoBar()
    return tqdm(total=total, unit="job")
