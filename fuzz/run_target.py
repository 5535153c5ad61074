"""One target under the fuzzer: a process of its own, for the fuzzer ends the one that it runs in."""

import importlib
import shlex
import sys
from pathlib import Path

import atheris

SCRIPT = Path(__file__).resolve()
ROOT = SCRIPT.parent.parent

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the worlds of the tests are played in here as well
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["dlrproxy", "protocols", "ring"]):
        target = importlib.import_module(f"fuzz.{name}")
    # To merge corpora the fuzzer runs its own command line again, through a shell.
    sys.argv[0] = shlex.join((sys.executable, str(SCRIPT), name))
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()
