"""The command that comes with the package: it is what `readyroom` runs, and the guardian of the tools' processes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def path() -> Path:
    """Where the command is."""
    here = Path(__file__).parent / "_bin" / "readyroom"
    if here.is_file():
        if not os.access(here, os.X_OK):
            # Some installers take the mark away.
            here.chmod(0o755)
        return here
    found = shutil.which("readyroom")
    if found is None:
        raise FileNotFoundError(f"the command readyroom is missing: {here} is not there; install the package again")
    return Path(found)


def main() -> None:
    """Becomes the command."""
    os.execv(path(), ["readyroom", *sys.argv[1:]])
