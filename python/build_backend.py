"""Builds the package with maturin, and the command `readyroom` into it: the command is also the guardian of the tools'
processes, which an interpreter can't be.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import maturin
from maturin import *  # noqa: F403

HERE = Path(__file__).parent
PLACE = HERE / "readyroom" / "_bin" / "readyroom"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _command()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _command()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


def _command():
    """Puts the command where the wheel takes it from."""
    cargo = os.environ.get("CARGO", "cargo")
    build = [cargo, "build", "--release", "--package", "readyroom-cli", "--bin", "readyroom", "--message-format=json"]
    built = subprocess.run(build, cwd=HERE, check=True, stdout=subprocess.PIPE).stdout
    programs = [json.loads(line).get("executable") for line in built.splitlines()]
    program = next(program for program in programs if program)
    PLACE.parent.mkdir(exist_ok=True)
    shutil.copy(program, PLACE)
    PLACE.chmod(0o755)
