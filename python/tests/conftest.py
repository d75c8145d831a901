"""What the tests share: a home of their own, tools that need no model, and a model that needs no network."""

from __future__ import annotations

import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("READYROOM_TOOLS_DIR", REPOSITORY / "target/tools"))
#: Programs of the workspace, as `cargo xtask test` builds them.
PROGRAMS = Path(os.environ.get("READYROOM_PROGRAMS_DIR", REPOSITORY / "target/debug"))

#: The environment of the person who runs the tests, for what builds.
OWN = dict(os.environ)

_FOREIGN = re.compile(
    "API_KEY|BASE_URL|API_BASE|^(AIDER|ANTHROPIC|AWS|AZURE|CLAUDE|CODEX|GEMINI|GOOGLE|LITELLM|OPENAI|OPENCODE|READYROOM|XDG)_"
)


def documented(name: str) -> str:
    """A definition from the documentation."""
    text = (REPOSITORY / "docs/definitions.md").read_text()
    found = re.search(rf"```toml\n# {re.escape(name)}\n(.*?)```", text, re.DOTALL)
    assert found, f"docs/definitions.md has no {name}"
    return found[1]


def echo(name: str, *habits: str) -> str:
    """The definition of the line echo."""
    argv = json.dumps([str(PROGRAMS / "readyroom-echo"), *habits])
    return f"""
id = "{name}"
driver = "repl"
argv = {argv}

[find]
version_args = ["--version"]

[repl]
fence = ":fence {{a}} {{b}}"
marker = "{{a}}{{b}}\\n"
reset = ":reset"
reset_ack = "context cleared"
interrupt = {json.dumps("--interrupt" in habits)}

[permissions.read]
prevents = ["writes", "shell"]

[permissions.edit]
prevents = ["shell"]
"""


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A HOME of the tests' own, with the tools that they use; a directory to work in."""
    root = tmp_path_factory.mktemp("room")
    home, config, state, work = (root / name for name in ("home", "config", "state", "work"))
    tools = config / "readyroom/tools"
    for directory in (home, tools, state, work):
        directory.mkdir(parents=True)
    (tools / "python3.toml").write_text(documented("python3.toml"))
    (tools / "echo.toml").write_text(echo("echo", "--interrupt"))
    (tools / "crashing.toml").write_text(echo("crashing", "--crash-start", "no licence found"))
    for name in list(os.environ):
        if _FOREIGN.search(name):
            del os.environ[name]
    os.environ.update(HOME=str(home), XDG_CONFIG_HOME=str(config), XDG_STATE_HOME=str(state))
    os.environ["PATH"] = f"{TOOLS / 'aider/bin'}:{os.environ['PATH']}"
    before = os.getcwd()
    os.chdir(work)
    yield root
    os.chdir(before)
    for name in set(os.environ) - set(OWN) - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(OWN)


def processes(root: Path) -> list[tuple[int, str]]:
    """The processes that live in these surroundings, without this one and its helpers."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"HOME={root / 'home'}\0".encode() not in (entry / "environ").read_bytes() + b"\0":
                continue
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z" and "server.mjs" not in words:
            found.append((int(entry.name), words))
    return found


def eventually(found: Callable[[], Any], seconds: float = 30) -> Any:
    """What is found, once there is something: for facts that nobody announces, such as what stands in /proc."""
    until = time.monotonic() + seconds
    while not (result := found()) and time.monotonic() < until:
        time.sleep(0.01)
    return result


def gone(root: Path, seconds: float = 5) -> list[tuple[int, str]]:
    """What still lives when it should be gone, after some time for it to go."""
    return [] if eventually(lambda: not processes(root), seconds) else processes(root)


@pytest.fixture
def sleepy(tmp_path: Path) -> Path:
    """The definition of a tool that never becomes ready."""
    file = tmp_path / "sleepy.toml"
    file.write_text(echo("sleepy", "--interrupt", "--hang-start"))
    return file


def starting(root: Path) -> Any:
    """Waits until the tool that never becomes ready has been started."""
    return eventually(lambda: [pid for pid, words in processes(root) if "--hang-start" in words])


@pytest.fixture(autouse=True)
def nothing_left(surroundings: Path) -> Iterator[None]:
    """No test leaves a process behind."""
    yield
    left = gone(surroundings)
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


class Model:
    """The local model server: answers by scripts that a word in the conversation chooses."""

    def __init__(self) -> None:
        server = REPOSITORY / "crates/readyroom-testkit/src/model/server.mjs"
        aimock = TOOLS / "npm/node_modules/@copilotkit/aimock/dist/index.js"
        self._process = subprocess.Popen(
            ["node", str(server), str(aimock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._numbers = itertools.count(1)
        self._facts: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = self._fact("listening")["listening"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fact = json.loads(line)
            if "listening" in fact or "done" in fact:
                self._facts.put(fact)

    def _fact(self, name: str) -> dict[str, Any]:
        fact = self._facts.get(timeout=60)
        assert name in fact, fact
        return fact

    def _command(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._process.stdin.write(json.dumps({"id": number, **command}) + "\n")
        self._process.stdin.flush()
        assert self._fact("done")["done"] == number

    def on(self, word: str, *answers: str, delay: float = 0) -> None:
        """Answers by these texts, one after the other, where the conversation holds the word; the last repeats."""
        self._command({"on": {"word": word, "steps": [_step(answer, delay) for answer in answers]}})

    def otherwise(self, answer: str, delay: float = 0) -> None:
        """Answers so where no word matches."""
        self._command({"otherwise": {"steps": [_step(answer, delay)]}})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _step(answer: str, delay: float) -> Any:
    say = {"say": answer}
    return {"delay": [int(delay * 1000), say]} if delay else say


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """A model for the session."""
    model = Model()
    yield model
    model.close()


@pytest.fixture
def aider(surroundings: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real aider on the local model, in a git repository of its own; the repository."""
    home = surroundings / "home"
    (home / ".aider.conf.yml").write_text("model: openai/gpt-4o\n")
    (home / ".aider.model.settings.yml").write_text(
        "- name: openai/gpt-4o\n  edit_format: diff\n  weak_model_name: openai/gpt-4o-mini\n  use_repo_map: true\n"
        "  extra_params: { max_retries: 0, num_retries: 0 }\n"
    )
    (home / ".gitconfig").write_text("[user]\n\tname = A Person\n\temail = person@example.org\n")
    prices = home / ".aider/caches/model_prices_and_context_window.json"
    prices.parent.mkdir(parents=True, exist_ok=True)
    prices.write_text('{"none": {}}')
    monkeypatch.setenv("OPENAI_API_BASE", f"http://127.0.0.1:{model.port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-local")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    return tmp_path


def block(file: str, old: str, new: str) -> str:
    """An answer by which aider changes a file."""
    return f"{file}\n```python\n<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n```\n"


def python(code: str, **options: Any) -> subprocess.Popen[str]:
    """Another interpreter that runs this code."""
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
