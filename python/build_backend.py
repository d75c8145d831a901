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
    return maturin.build_wheel(wheel_directory, _prepared(config_settings), metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return maturin.build_editable(wheel_directory, _prepared(config_settings), metadata_directory)


def _prepared(config_settings):
    """Puts the command where the wheel takes it from. The setting `profile` is cargo's, by default `release`."""
    settings = dict(config_settings or {})
    profile = settings.pop("profile", "release")
    cargo = os.environ.get("CARGO", "cargo")
    build = [cargo, "build", "--profile", profile, "--package", "readyroom-cli", "--bin", "readyroom"]
    built = subprocess.run([*build, "--message-format=json"], cwd=HERE, check=True, stdout=subprocess.PIPE).stdout
    programs = [json.loads(line).get("executable") for line in built.splitlines()]
    program = next(program for program in programs if program)
    PLACE.parent.mkdir(exist_ok=True)
    shutil.copy(program, PLACE)
    PLACE.chmod(0o755)
    return {**settings, "build-args": f"--profile {profile} {settings.get('build-args', '')}".strip()}
