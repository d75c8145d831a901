"""What comes back from a turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ._core import RawResponse, read_response
from .errors import ReadyroomError, _of

__all__ = ["ContextReply", "Response", "Timings", "Usage"]


@dataclass(frozen=True)
class Usage:
    """What a turn used, where the tool tells it.

    >>> from readyroom import Usage
    >>> Usage(input_tokens=10).output_tokens is None
    True
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class Timings:
    """Where a turn's time went, in seconds.

    >>> from readyroom import Timings
    >>> Timings(queued=0.5, turn=2.0, reset=0.0).turn
    2.0
    """

    #: Waiting for an instance.
    queued: float = 0.0
    #: From the prompt's sending to the turn's end.
    turn: float = 0.0
    #: Proving the context new before the prompt; 0 where that was done while the instance was idle.
    reset: float = 0.0


@dataclass(frozen=True)
class ContextReply:
    """What a context command such as ``/add f`` led to: the tool's answer, or why it could not be carried out.

    >>> from readyroom import ContextReply
    >>> ContextReply("/add f", "Added f to the chat", None).ok
    True
    """

    command: str
    answer: str | None
    error: ReadyroomError | None

    @property
    def ok(self) -> bool:
        """Whether the command was carried out."""
        return self.error is None


class Response:
    """A finished turn. A failed one is a response too: its ``text`` raises, so that it can't be taken for an answer.

    >>> with launch_cluster("python3", count=1, permissions="full") as cluster:
    ...     index = cluster.send("print(6 * 7)")
    ...     response = cluster.read_any(timeout=30)
    >>> response.ok, response.text, response.instance
    (True, '42\\n', 0)
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: RawResponse) -> None:
        self._raw = raw

    @property
    def text(self) -> str:
        """The answer: the tool's last piece of text. Raises the kind's exception where the turn did not succeed. Bytes
        that are not UTF-8 stand in it as surrogates (``surrogateescape``); :attr:`data` has them as they came.
        """
        error = self.error
        if error is not None:
            raise error
        return self._raw.text()

    @property
    def data(self) -> bytes:
        """The answer's bytes, also of a turn that did not succeed."""
        return self._raw.data()

    @property
    def transcript(self) -> str:
        """All text of the turn, also of one that did not succeed."""
        return self._raw.transcript()

    @property
    def answers(self) -> Sequence[str]:
        """The answers to all prompts of a job that had several."""
        return tuple(self._raw.answers())

    @property
    def ok(self) -> bool:
        """Whether the turn succeeded."""
        return self._raw.ok

    @property
    def outcome(self) -> str:
        """``succeeded``, ``failed``, ``cancelled``, ``timed_out`` or ``lost``."""
        return self._raw.outcome

    @property
    def error(self) -> ReadyroomError | None:
        """Why it did not succeed; None where it did."""
        parts = self._raw.failure
        return None if parts is None else _of(parts)

    @property
    def turn(self) -> int:
        """The turn's number in its cluster."""
        return self._raw.turn

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self._raw.tool

    @property
    def instance(self) -> int | None:
        """The index of the instance that ran it; None where none did."""
        return self._raw.instance

    @property
    def generation(self) -> int:
        """Which life of the instance, from 1."""
        return self._raw.generation

    @property
    def usage(self) -> Usage:
        """Tokens and cost, where the tool tells them."""
        return Usage(*self._raw.usage)

    @property
    def timings(self) -> Timings:
        """Where the time went."""
        return Timings(*self._raw.timings)

    @property
    def changed_files(self) -> Sequence[str]:
        """The files that the tool says it changed."""
        return tuple(self._raw.changed_files)

    @property
    def preamble(self) -> Sequence[ContextReply]:
        """The answers to the turn's context commands that were not read before."""
        return tuple(
            ContextReply(command, answer, None if failure is None else _of(failure))
            for command, answer, failure in self._raw.preamble
        )

    @property
    def denials(self) -> Sequence[str] | None:
        """What the tool wanted and was not allowed; None where its protocol does not tell."""
        denials = self._raw.denials
        return None if denials is None else tuple(denials)

    @property
    def fresh(self) -> bool:
        """Whether the turn began in a context that was proven new."""
        return self._raw.fresh

    @property
    def context_lost(self) -> bool:
        """With ``context="keep"``: whether the conversation was lost before this turn."""
        return self._raw.context_lost

    def __str__(self) -> str:
        error = self.error
        return self._raw.text() if error is None else f"<failed: {error.kind}: {error.message}>"

    def __repr__(self) -> str:
        text = self._raw.text() if self.ok else str(self)
        short = text if len(text) <= 60 else text[:57] + "..."
        return f"<Response turn={self.turn} tool={self.tool!r} instance={self.instance} {self.outcome}: {short!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        return (_read, (self._raw.json(),))


def _read(json: str) -> Response:
    return Response(read_response(json))
