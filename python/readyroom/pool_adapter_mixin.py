"""Pools for adapters: a class of yours that has ``invoke(request)`` runs its requests on warm instances.

    >>> class BaseAdapter:
    ...     def invoke(self, request):
    ...         return "one process for " + request["prompt"]
    >>> class PythonAdapter(PoolAwareMixin, BaseAdapter):
    ...     tool_id = "python3"
    >>> adapter = PythonAdapter()
    >>> adapter.invoke({"prompt": "print(6 * 7)"})
    'one process for print(6 * 7)'
    >>> adapter.use_pool(count=1, permissions="full")
    >>> adapter.invoke({"prompt": "print(6 * 7)"}).text
    '42\\n'
    >>> adapter.disable_pool()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from .cluster_manager import ClusterManager
from .job import Job
from .process_pool import _ended
from .response import Response

__all__ = ["PoolAwareMixin", "make_pool_aware"]

_Adapter = TypeVar("_Adapter")


class PoolAwareMixin:
    """Stands before an adapter's class: ``class MyAdapter(PoolAwareMixin, BaseAdapter)``.

    Without a pool, ``invoke`` is the adapter's own. With one (:meth:`use_pool`), a request becomes a turn
    (:meth:`to_turn`), and its response what ``invoke`` returns (:meth:`to_result`); both can be overridden.

    >>> class Adapter(PoolAwareMixin):
    ...     tool_id = "python3"
    >>> adapter = Adapter()
    >>> adapter.use_pool(count=1, permissions="full")
    >>> adapter.invoke({"prompt": "print(6 * 7)"}).text
    '42\\n'
    >>> adapter.disable_pool()
    """

    #: The cluster, while the pool is in use.
    _cluster: ClusterManager | None = None

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for base in cls.__mro__:
            if base is PoolAwareMixin:
                break
            if "invoke" in base.__dict__ and not issubclass(base, PoolAwareMixin):
                raise TypeError(
                    f"{base.__name__} stands before PoolAwareMixin in {cls.__name__}, so its invoke would never reach "
                    f"the pool; write class {cls.__name__}(PoolAwareMixin, {base.__name__})"
                )

    def use_pool(self, count: int = 3, tool: str | None = None, **options: Any) -> None:
        """Launches the pool. The tool is the argument, else the adapter's ``tool_id``, else its ``name``."""
        chosen = _tool_of(self, tool)
        self.disable_pool()
        self._cluster = ClusterManager(chosen, count, **options)

    def is_pool_enabled(self) -> bool:
        """Whether requests go to the pool."""
        return self._cluster is not None

    def disable_pool(self) -> None:
        """Ends the pool; requests go to the adapter itself again."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.shutdown()

    def get_pool_status(self) -> dict[str, Any]:
        """The status of the pool; ``{"enabled": False}`` without one."""
        if self._cluster is None:
            return {"enabled": False}
        return {"enabled": True, **self._cluster.get_status()}

    def invoke(self, request: Any) -> Any:
        """Runs a request: on the pool, or without one as the adapter does."""
        if self._cluster is not None:
            return self._invoke_with_pool(request)
        invoke = getattr(super(), "invoke", None)
        if invoke is None:
            raise TypeError(f"{type(self).__name__} has no invoke of its own to fall back to; call use_pool() first")
        return invoke(request)

    def _invoke_with_pool(self, request: Any) -> Any:
        if self._cluster is None:
            raise RuntimeError("the pool is not in use; call use_pool() first")
        return self.to_result(_ended(self._cluster.submit(self.to_turn(request))), request)

    def to_turn(self, request: Any) -> Job:
        """The job for a request: its ``prompt``, ``file`` or ``files`` and ``timeout``, as attributes or keys."""
        return _job_of(request)

    def to_result(self, response: Response, request: Any) -> Any:
        """What ``invoke`` returns for a response: the response itself."""
        return response


def make_pool_aware(
    adapter: _Adapter,
    pool_count: int = 3,
    tool: str | None = None,
    *,
    to_turn: Callable[[Any], Job] | None = None,
    to_result: Callable[[Response, Any], Any] | None = None,
    **options: Any,
) -> _Adapter:
    """An adapter like ``adapter``, of its type and with its state, whose ``invoke`` runs on a pool of warm instances. It
    gains ``close()``, which ends them. The adapter that was given stays as it is.

    >>> class Adapter:
    ...     name = "python3"
    ...     def invoke(self, request):
    ...         return "one process"
    >>> adapter = make_pool_aware(Adapter(), pool_count=1, permissions="full")
    >>> isinstance(adapter, Adapter), adapter.invoke({"prompt": "print(6 * 7)"}).text
    (True, '42\\n')
    >>> adapter.close()
    """
    if not callable(getattr(adapter, "invoke", None)):
        raise TypeError(f"adapter must have a method invoke(request); {type(adapter).__name__} has none")
    chosen = _tool_of(adapter, tool)
    kind = type(adapter)
    pooled = type(kind.__name__, (_Pooled, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    twin = kind.__new__(cast("type[_Adapter]", pooled))
    for name, value in _state_of(adapter).items():
        # An invoke that belongs to the object and not to its class must not stand before the pool's.
        object.__setattr__(twin, "_alone" if name == "invoke" else name, value)
    pool = cast("_Pooled", twin)
    pool._hooks = (to_turn, to_result)
    pool.use_pool(pool_count, chosen, **options)
    return twin


class _Pooled(PoolAwareMixin):
    """What :func:`make_pool_aware` puts before an adapter's own class."""

    _hooks: tuple[Callable[[Any], Job] | None, Callable[[Response, Any], Any] | None] = (None, None)
    _alone: Callable[[Any], Any] | None = None

    def invoke(self, request: Any) -> Any:
        if self._cluster is None and self._alone is not None:
            return self._alone(request)
        return super().invoke(request)

    def to_turn(self, request: Any) -> Job:
        given = self._hooks[0] or getattr(super(PoolAwareMixin, self), "to_turn", None)
        return given(request) if given is not None else _job_of(request)

    def to_result(self, response: Response, request: Any) -> Any:
        given = self._hooks[1] or getattr(super(PoolAwareMixin, self), "to_result", None)
        return given(response, request) if given is not None else response

    def close(self) -> None:
        """Ends the pool, and closes the adapter where it can be."""
        self.disable_pool()
        close = getattr(super(PoolAwareMixin, self), "close", None)
        if close is not None:
            close()


def _state_of(adapter: object) -> dict[str, Any]:
    """An object's own attributes, also those in slots."""
    slots = [name for kind in type(adapter).__mro__ for name in _names(kind.__dict__.get("__slots__", ()))]
    state = {name: getattr(adapter, name) for name in slots if name != "__dict__" and hasattr(adapter, name)}
    return {**state, **getattr(adapter, "__dict__", {})}


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _tool_of(adapter: object, tool: str | None) -> str:
    for found in (tool, getattr(adapter, "tool_id", None), getattr(adapter, "name", None)):
        if isinstance(found, str) and found:
            return found
    raise ValueError(
        f"which tool? give tool=..., or {type(adapter).__name__} a `tool_id` or a `name`; it is not guessed"
    )


def _job_of(request: Any) -> Job:
    """A job from a request, whose parts are attributes or keys."""
    if isinstance(request, (Job, str)):
        return Job.of(request)

    def part(name: str) -> Any:
        return request.get(name) if isinstance(request, Mapping) else getattr(request, name, None)

    prompt, file, files = part("prompt"), part("file"), part("files")
    if prompt is None:
        raise ValueError(f"the request has no prompt: {request!r}")
    given = list(files) if files is not None else []
    if file is not None:
        given.insert(0, file)
    return Job(prompt, files=tuple(given), timeout=part("timeout"))
