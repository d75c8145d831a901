"""What can go wrong, as a tree of exceptions: one for each kind of failure, below :class:`ReadyroomError`.

    >>> from readyroom import ModelError, ReadyroomError
    >>> issubclass(ModelError, ReadyroomError), ModelError.kind
    (True, 'model_error')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .response import Response

__all__ = [
    "AuthError",
    "BadInput",
    "BudgetExceeded",
    "Cancelled",
    "Conflict",
    "Crashed",
    "Lost",
    "ModelError",
    "NotReady",
    "NotRun",
    "OutOfScope",
    "OutputLimit",
    "PermissionDenied",
    "ProtocolError",
    "QueueFull",
    "RateLimited",
    "ReadyroomError",
    "SchemaError",
    "Stalled",
    "TimedOut",
    "ToolMissing",
    "TurnFailed",
    "Unchanged",
    "UnknownModel",
    "UsageWindow",
    "VerifyFailed",
]

_Parts = tuple[str, str, str, bool, str, "float | None", "str | None"]


class ReadyroomError(Exception):
    """Anything that readyroom reports.

    >>> from readyroom import ReadyroomError, launch_cluster
    >>> try:
    ...     launch_cluster("no-such-tool")
    ... except ReadyroomError as error:
    ...     print(error.kind)
    bad_input
    """

    #: The kind's name, as in tables and JSON.
    kind: ClassVar[str] = "error"

    def __init__(
        self, message: str, *, evidence: str = "", retryable: bool = False, origin: str = "caller"
    ) -> None:
        super().__init__(message)
        #: One sentence for a person.
        self.message = message
        #: The tool's own last words, or those of its protocol; may be empty.
        self.evidence = evidence
        #: Whether the same may succeed when it is tried again.
        self.retryable = retryable
        #: Who caused it: ``caller``, ``tool``, ``model``, ``host`` or ``job``.
        self.origin = origin

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_again, (type(self), self.message, self.__dict__.copy()))


def _again(kind: type[ReadyroomError], message: str, state: dict[str, object]) -> ReadyroomError:
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class QueueFull(ReadyroomError):
    """As many turns are queued or unread as ``max_pending`` allows: read some first.

    >>> from readyroom import QueueFull
    >>> QueueFull.kind
    'queue_full'
    """

    kind = "queue_full"


class TurnFailed(ReadyroomError):
    """A turn did not succeed; each kind has a class below this one.

    >>> from readyroom import TurnFailed
    >>> TurnFailed.kind
    'failed'
    """

    kind = "failed"
    #: The turn's response, where a future raised this: the transcript may tell how far it came.
    response: Response | None = None


class ToolMissing(TurnFailed):
    """The tool's program was not found.

    >>> from readyroom import ToolMissing
    >>> ToolMissing.kind
    'tool_missing'
    """

    kind = "tool_missing"


class NotReady(TurnFailed):
    """No instance became ready. ``instances`` holds the failure of each, by index.

    >>> from readyroom import NotReady
    >>> NotReady.kind
    'not_ready'
    """

    kind = "not_ready"
    instances: dict[int, ReadyroomError]

    def __init__(
        self, message: str, *, evidence: str = "", retryable: bool = True, origin: str = "tool"
    ) -> None:
        super().__init__(message, evidence=evidence, retryable=retryable, origin=origin)
        self.instances = {}


class AuthError(TurnFailed):
    """The model's provider refused the credentials.

    >>> from readyroom import AuthError
    >>> AuthError.kind
    'auth'
    """

    kind = "auth"


class UnknownModel(TurnFailed):
    """The provider does not know the model.

    >>> from readyroom import UnknownModel
    >>> UnknownModel.kind
    'unknown_model'
    """

    kind = "unknown_model"


class RateLimited(TurnFailed):
    """The provider asks to slow down; ``retry_after`` is in seconds where it says so.

    >>> from readyroom import RateLimited
    >>> RateLimited.kind
    'rate_limited'
    """

    kind = "rate_limited"
    retry_after: float | None = None


class UsageWindow(TurnFailed):
    """A quota is used up; ``resets_at`` is an ISO 8601 time where the tool tells it.

    >>> from readyroom import UsageWindow
    >>> UsageWindow.kind
    'usage_window'
    """

    kind = "usage_window"
    resets_at: str | None = None


class ModelError(TurnFailed):
    """The model or its provider failed: a server error, a stream that broke off, an empty answer.

    >>> from readyroom import ModelError
    >>> ModelError.kind
    'model_error'
    """

    kind = "model_error"


class PermissionDenied(TurnFailed):
    """The turn needed what the permission level does not hold.

    >>> from readyroom import PermissionDenied
    >>> PermissionDenied.kind
    'permission_denied'
    """

    kind = "permission_denied"


class Stalled(TurnFailed):
    """Nothing moved for too long.

    >>> from readyroom import Stalled
    >>> Stalled.kind
    'stalled'
    """

    kind = "stalled"


class Crashed(TurnFailed):
    """The tool's process ended before the turn did; ``exit`` says how, where that is known.

    >>> from readyroom import Crashed
    >>> Crashed.kind
    'crashed'
    """

    kind = "crashed"
    exit: str | None = None


class ProtocolError(TurnFailed):
    """The tool said something that its protocol does not allow.

    >>> from readyroom import ProtocolError
    >>> ProtocolError.kind
    'protocol'
    """

    kind = "protocol"


class OutputLimit(TurnFailed):
    """The tool's output passed the limit that was set for it.

    >>> from readyroom import OutputLimit
    >>> OutputLimit.kind
    'output_limit'
    """

    kind = "output_limit"


class BadInput(TurnFailed, ValueError):
    """What was asked for can't be given to this tool.

    >>> from readyroom import BadInput
    >>> BadInput.kind
    'bad_input'
    """

    kind = "bad_input"


class NotRun(TurnFailed):
    """The tool reported an end, but the prompt was never run.

    >>> from readyroom import NotRun
    >>> NotRun.kind
    'not_run'
    """

    kind = "not_run"


class VerifyFailed(TurnFailed):
    """The job's verify command failed.

    >>> from readyroom import VerifyFailed
    >>> VerifyFailed.kind
    'verify_failed'
    """

    kind = "verify_failed"


class SchemaError(TurnFailed):
    """The answer does not fit the job's schema.

    >>> from readyroom import SchemaError
    >>> SchemaError.kind
    'schema'
    """

    kind = "schema"


class Unchanged(TurnFailed):
    """The job had to change something, and changed nothing.

    >>> from readyroom import Unchanged
    >>> Unchanged.kind
    'unchanged'
    """

    kind = "unchanged"


class OutOfScope(TurnFailed):
    """The job changed something that it must not.

    >>> from readyroom import OutOfScope
    >>> OutOfScope.kind
    'out_of_scope'
    """

    kind = "out_of_scope"


class Conflict(TurnFailed):
    """The job's changes do not apply to the caller's tree.

    >>> from readyroom import Conflict
    >>> Conflict.kind
    'conflict'
    """

    kind = "conflict"


class BudgetExceeded(TurnFailed):
    """A budget is used up.

    >>> from readyroom import BudgetExceeded
    >>> BudgetExceeded.kind
    'budget'
    """

    kind = "budget"


class TimedOut(TurnFailed, TimeoutError):
    """The turn's time limit passed.

    >>> from readyroom import TimedOut
    >>> TimedOut.kind
    'timed_out'
    """

    kind = "timed_out"


class Cancelled(TurnFailed):
    """Somebody cancelled the turn.

    >>> from readyroom import Cancelled
    >>> Cancelled.kind
    'cancelled'
    """

    kind = "cancelled"


class Lost(TurnFailed):
    """Nobody can know how it ended: its owner died while it ran.

    >>> from readyroom import Lost
    >>> Lost.kind
    'lost'
    """

    kind = "lost"


def _below(kind: type[ReadyroomError]) -> dict[str, type[ReadyroomError]]:
    found: dict[str, type[ReadyroomError]] = {}
    for each in kind.__subclasses__():
        found[each.kind] = each
        found.update(_below(each))
    return found


_KINDS = _below(ReadyroomError)


def _of(parts: _Parts) -> ReadyroomError:
    """The exception for a failure, from its parts."""
    name, message, evidence, retryable, origin, seconds, more = parts
    kind = _KINDS.get(name, TurnFailed)
    error = kind(message, evidence=evidence, retryable=retryable, origin=origin)
    if isinstance(error, RateLimited):
        error.retry_after = seconds
    elif isinstance(error, UsageWindow):
        error.resets_at = more
    elif isinstance(error, Crashed):
        error.exit = more
    return error


def _not_ready(message: str, instances: list[tuple[int, _Parts]]) -> NotReady:
    evidence = "\n".join(parts[2] for _, parts in instances if parts[2])
    error = NotReady(message, evidence=evidence)
    error.instances = {index: _of(parts) for index, parts in instances}
    return error


def _stopped() -> Cancelled:
    return Cancelled("cancelled before it was done")


def _queue_full(message: str) -> QueueFull:
    return QueueFull(message, retryable=True)
