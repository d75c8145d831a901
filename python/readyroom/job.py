"""What is asked of a tool."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from . import _checks

__all__ = ["Job"]

_Path = Union[str, "os.PathLike[str]"]

_MODES = ("default", "ask", "code", "architect")


@dataclass(frozen=True)
class Job:
    """One or more prompts in one context, with the files that they are about.

    >>> from readyroom import Job
    >>> Job("Add type hints", files=["src/a.py"], tool="aider").files
    ('src/a.py',)
    """

    #: The prompt, or several, which are turns in one context; the last answer is the job's.
    prompt: str | Sequence[str]
    #: Files to work on, relative to the cluster's directory.
    files: Sequence[_Path] = ()
    #: The tool, for an :class:`~readyroom.Orchestrator` and for batches; a cluster has its own.
    tool: str | None = None
    #: The key of sticky routing.
    key: str | None = None
    #: The longest time that it may run, in seconds.
    timeout: float | None = None
    #: ``ask``: edits are denied where the tool can deny them; ``code``; ``architect``; else as the tool is set up.
    mode: str = "default"
    #: A name in batches.
    id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(_checks.paths("files", self.files)))
        for prompt in self.prompts:
            _checks.text("prompt", prompt)
        _checks.one_of("mode", self.mode, _MODES)
        _checks.optional_seconds("timeout", self.timeout)
        for name in ("tool", "key", "id"):
            _checks.optional_text(name, getattr(self, name))

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, also where there is one."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        if not isinstance(self.prompt, Sequence):
            raise TypeError(f"prompt must be a string or a list of strings, not {type(self.prompt).__name__}")
        return tuple(self.prompt)

    @classmethod
    def of(cls, value: Job | str | Mapping[str, Any], **more: Any) -> Job:
        """A job from a job, a prompt, or a mapping with the same names.

        >>> from readyroom import Job
        >>> Job.of({"prompt": "Explain it", "files": ["a.py"]}).prompts
        ('Explain it',)
        """
        given = {name: value for name, value in more.items() if value not in (None, ())}
        if isinstance(value, cls):
            return _replaced(value, given)
        if isinstance(value, str):
            return cls(value, **given)
        if isinstance(value, Mapping):
            fields = dict(value)
            unknown = [name for name in fields if name not in cls.__dataclass_fields__]
            if unknown:
                known = ", ".join(cls.__dataclass_fields__)
                raise ValueError(f"a job has no field {unknown[0]!r}; it has {known}")
            if "prompt" not in fields:
                raise ValueError("a job needs a prompt")
            return cls(**{**fields, **given})
        raise TypeError(f"a job is a Job, a prompt or a mapping, not {type(value).__name__}")

    def _order(self) -> dict[str, Any]:
        """What the engine takes."""
        return {
            "prompts": list(self.prompts),
            "files": list(self.files),
            "mode": self.mode,
            "key": self.key,
            "timeout": None if self.timeout is None else float(self.timeout),
        }


def _replaced(job: Job, given: dict[str, Any]) -> Job:
    if not given:
        return job
    fields = {name: getattr(job, name) for name in Job.__dataclass_fields__}
    return Job(**{**fields, **given})
