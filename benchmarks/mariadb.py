"""Database servers of contestants: found, made, and told things."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.contestants import AbsentError, StartFailedError

SETUP_S: Final = 100.0
_PATH: Final = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def found(name: str) -> str:
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise AbsentError(f"{name} is not installed (tests/system-packages.sh installs it, as root or with sudo)")
    return path


def made(place: Path, install: str) -> list[str]:
    """An empty data directory in `place`; returns the options that name the servers' account."""
    place.mkdir(mode=0o755)
    account = []
    if os.geteuid() == 0:
        account = ["--user=mysql"]
        shutil.chown(place, "mysql", "mysql")
    environment = {**os.environ, "TMPDIR": str(place)}  # a server that starts clears its directory for such files
    run(
        [
            install, "--no-defaults", f"--datadir={place / 'data'}", "--skip-test-db", "--skip-name-resolve", "--force",
            "--auth-root-authentication-method=normal", *account,
        ],
        environment=environment,
    )  # fmt: skip
    return account


def run(command: Sequence[str], given: str = "", *, environment: dict[str, str] | None = None) -> str:
    """What it said. Raises StartFailedError."""
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=SETUP_S, check=False, env=environment
    )
    if done.returncode != 0:
        raise StartFailedError(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout
