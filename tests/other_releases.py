"""Other releases, to run beside this one, with the dependencies of this environment.

The one before, as it was shipped (tests/releases/README.md): `async with open_fleet(..., command=before())`. And LATER,
which is this one made newer than it is: later_dlrproxy.py says in what.
"""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

LATER: Final = (sys.executable, str(Path(__file__).with_name("later_dlrproxy.py")))
LATER_RELEASE: Final = "99.0.0"

(WHEEL,) = Path(__file__).parent.joinpath("releases").glob("*.whl")
RELEASE_BEFORE: Final = WHEEL.name.split("-")[1]


@functools.cache
def unpacked() -> Path:
    """The directory with the packages of the release before, until the test run ends."""
    directory = Path(tempfile.mkdtemp(prefix="release-before-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    zipfile.ZipFile(WHEEL).extractall(directory)
    return directory


def python() -> tuple[str, ...]:
    """An interpreter that imports the packages of the release before, and none of this one."""
    return ("env", f"PYTHONPATH={unpacked()}", sys.executable)


def before() -> tuple[str, ...]:
    """The `dlrproxy` of the release before."""
    return (*python(), "-m", "dlrproxy")


def evaluate(code: str, given: bytes = b"") -> bytes:
    """What a script prints in the release before, with `given` at its standard input."""
    done = subprocess.run([*python(), "-c", code], input=given, capture_output=True, check=False, cwd=unpacked())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
