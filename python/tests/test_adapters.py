"""Adapters that run on pools: the mixin before a base class, and the wrapper around an adapter of somebody else's."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from readyroom import Job, PoolAwareMixin, Response, make_pool_aware


class BaseAdapter:
    """Never calls ``super().__init__``, as most do not."""

    def __init__(self, prefix: str = "one shot") -> None:
        self.prefix = prefix

    def invoke(self, request: Any) -> str:
        return f"{self.prefix}: {request['prompt']}"


class EchoAdapter(PoolAwareMixin, BaseAdapter):
    tool_id = "echo"


def test_the_mixin_falls_back_to_one_shot() -> None:
    adapter = EchoAdapter("alone")
    assert not adapter.is_pool_enabled() and adapter.get_pool_status() == {"enabled": False}
    assert adapter.invoke({"prompt": "hello"}) == "alone: hello"
    adapter.use_pool(count=2)
    assert adapter.is_pool_enabled() and adapter._cluster is not None and adapter._cluster.count == 2
    assert adapter.invoke({"prompt": "hello"}).text == "hello\n"
    assert adapter.get_pool_status()["metrics"]["total_sent"] == 1
    adapter.use_pool(count=1)
    assert adapter._cluster.count == 1, "a second pool takes the place of the first"
    adapter.disable_pool()
    assert adapter.invoke({"prompt": "again"}) == "alone: again"
    adapter.disable_pool()


def test_the_other_order_of_bases_is_refused() -> None:
    with pytest.raises(TypeError, match=r"write class Wrong\(PoolAwareMixin, BaseAdapter\)"):

        class Wrong(BaseAdapter, PoolAwareMixin):
            pass


def test_an_invoke_of_its_own_may_go_on_to_the_mixins() -> None:
    class Own(PoolAwareMixin, BaseAdapter):
        name = "echo"

        def invoke(self, request: Any) -> Any:
            return self._invoke_with_pool(request) if self.is_pool_enabled() else super().invoke(request)

    adapter = Own()
    assert adapter.invoke({"prompt": "hello"}) == "one shot: hello"
    adapter.use_pool(count=1)
    assert adapter.invoke({"prompt": "hello"}).text == "hello\n"
    adapter.disable_pool()

    class Alone(PoolAwareMixin):
        tool_id = "echo"

    with pytest.raises(TypeError, match="no invoke of its own"):
        Alone().invoke({"prompt": "x"})


def test_the_tool_is_never_guessed() -> None:
    class Nameless(PoolAwareMixin, BaseAdapter):
        name = None

    with pytest.raises(ValueError, match="which tool"):
        Nameless().use_pool()
    with pytest.raises(ValueError, match="which tool"):
        make_pool_aware(BaseAdapter())
    adapter = Nameless()
    adapter.use_pool(count=1, tool="echo")
    adapter.disable_pool()


@dataclass
class Request:
    prompt: str
    file: str | None = None
    timeout: float | None = None


@pytest.mark.parametrize(
    "request_",
    [
        Request("hello", "a.txt", 5),
        SimpleNamespace(prompt="hello", files=["a.txt"]),
        {"prompt": "hello", "file": "a.txt", "timeout": 5},
        {"prompt": "hello", "files": ["a.txt"]},
    ],
)
def test_requests(request_: Any, tmp_path: Any) -> None:
    job = EchoAdapter().to_turn(request_)
    assert job.prompts == ("hello",) and job.files == ("a.txt",)
    with pytest.raises(ValueError, match="has no prompt"):
        EchoAdapter().to_turn({"file": "a.txt"})


def test_hooks_are_overridden() -> None:
    class Shouting(EchoAdapter):
        def to_turn(self, request: Any) -> Job:
            return Job(request["prompt"].upper())

        def to_result(self, response: Response, request: Any) -> str:
            return f"{request['prompt']} became {response.text.strip()}"

    adapter = Shouting()
    adapter.use_pool(count=1)
    assert adapter.invoke({"prompt": "hello"}) == "hello became HELLO"
    adapter.disable_pool()


def test_a_failed_turn_is_a_result_whose_text_raises() -> None:
    adapter = EchoAdapter()
    adapter.use_pool(count=1)
    response = adapter.invoke({"prompt": "@crash"})
    assert not response.ok and response.error.kind == "crashed"
    adapter.disable_pool()


class Closing(BaseAdapter):
    tool_id = "echo"
    closed = False

    def close(self) -> None:
        self.closed = True


class Slotted:
    __slots__ = ("prefix",)
    tool_id = "echo"

    def __init__(self) -> None:
        self.prefix = "slots"

    def invoke(self, request: Any) -> str:
        return f"{self.prefix}: {request['prompt']}"


def test_the_wrapper_keeps_type_and_state_and_leaves_the_adapter_alone() -> None:
    adapter = Closing("alone")
    pooled = make_pool_aware(adapter, pool_count=2)
    assert isinstance(pooled, Closing) and pooled.prefix == "alone"
    assert pooled.invoke({"prompt": "hello"}).text == "hello\n"
    assert adapter.invoke({"prompt": "hello"}) == "alone: hello"
    pooled.close()
    assert pooled.closed and not adapter.closed
    assert pooled.invoke({"prompt": "hello"}) == "alone: hello"


def test_the_wrapper_has_hooks() -> None:
    pooled = make_pool_aware(
        BaseAdapter(),
        1,
        "echo",
        to_turn=lambda request: Job(request["prompt"] * 2),
        to_result=lambda response, request: response.text.strip(),
    )
    assert pooled.invoke({"prompt": "ab"}) == "abab"
    pooled.close()
    with pytest.raises(TypeError, match="invoke"):
        make_pool_aware(object(), 1, "echo")


def test_an_adapter_with_slots_or_an_invoke_of_its_own_is_wrapped() -> None:
    for adapter, alone in [
        (Slotted(), "slots: hello"),
        (SimpleNamespace(name="echo", invoke=lambda request: request["prompt"].upper()), "HELLO"),
    ]:
        pooled = make_pool_aware(adapter, 1)
        assert isinstance(pooled, type(adapter))
        assert pooled.invoke({"prompt": "hello"}).text == "hello\n"
        pooled.close()
        assert pooled.invoke({"prompt": "hello"}) == alone


def test_two_threads_never_get_each_others_answers() -> None:
    adapter = EchoAdapter()
    adapter.use_pool(count=3)
    wrong = []

    def work(name: str) -> None:
        for n in range(100):
            text = adapter.invoke({"prompt": f"{name} {n}"}).text
            if text != f"{name} {n}\n":
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(f"thread {t}",)) for t in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    adapter.disable_pool()
    assert not wrong
