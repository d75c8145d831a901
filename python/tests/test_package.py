"""What a person gets: the wheel in a fresh environment, the source distribution, the types."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import OWN, REPOSITORY, TOOLS, Model

WHEEL = Path(os.environ.get("READYROOM_WHEEL", "no wheel: run the tests by `cargo xtask test`"))
PACKAGE = REPOSITORY / "python"


def run(*words: object, **more: object) -> str:
    done = subprocess.run([os.fspath(word) for word in words], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and nothing else; its programs."""
    place = tmp_path_factory.mktemp("fresh")
    venv.create(place, with_pip=True)
    run(place / "bin/python", "-m", "pip", "install", "--quiet", "--no-index", WHEEL)
    return place / "bin"


def test_the_quick_start_on_a_real_tool(fresh: Path, aider: Path, model: Model) -> None:
    (aider / "my_file.py").write_text("def f(a):\n    return a\n")
    model.otherwise("An answer.\n")
    code = """
from readyroom import launch_cluster
cluster = launch_cluster("aider", count=3)
cluster.send("/add my_file.py")
cluster.send("/ask 'Add type hints'")
response = cluster.read_any(timeout=60)
cluster.shutdown()
print(response.text, end="")
"""
    assert run(fresh / "python", "-c", code) == "An answer.\n"


def test_the_command_comes_with_it(fresh: Path) -> None:
    assert "aider" in run(fresh / "readyroom", "tools")
    assert run(fresh / "readyroom", "run", "-t", "echo", "hello") == "hello\n"
    done = subprocess.run([fresh / "readyroom", "run", "-t", "no-such-tool", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "no-such-tool" in done.stderr


def test_what_is_in_the_wheel() -> None:
    names = zipfile.ZipFile(WHEEL).namelist()
    assert {"readyroom/py.typed", "readyroom/_core.pyi", "readyroom/_core.abi3.so", "readyroom/_bin/readyroom"} <= set(names)
    assert "cp310-abi3" in WHEEL.name


def test_the_source_distribution_builds(tmp_path: Path) -> None:
    build = "import build_backend, sys; print(build_backend.build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", build, tmp_path, cwd=PACKAGE, env=OWN).splitlines()[-1]
    with tarfile.open(tmp_path / name) as archive:
        assert not [member.name for member in archive if "/_bin/" in member.name]
    # Dependencies that were built before serve here, too.
    env = {**OWN, "CARGO_TARGET_DIR": str(REPOSITORY / "target")}
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--config-settings=profile=dev"]
    run(*pip, "-w", tmp_path, tmp_path / name, env=env)
    (wheel,) = tmp_path.glob("*.whl")
    assert "readyroom/_bin/readyroom" in zipfile.ZipFile(wheel).namelist()


def test_types_are_strict() -> None:
    run(sys.executable, "-m", "mypy", "--cache-dir", REPOSITORY / "target/mypy", cwd=PACKAGE)
    run(sys.executable, "-m", "mypy.stubtest", "readyroom._core", env={**os.environ, "MYPYPATH": str(PACKAGE)})
    run(TOOLS / "npm/node_modules/.bin/pyright", "--pythonpath", sys.executable, cwd=PACKAGE)
