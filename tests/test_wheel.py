"""The built wheel, installed into an environment of its own and run from another directory.

An editable install hides what a wheel lacks, so nothing here may come from the source tree. The dependencies are those
of this environment, made visible to the new one, so that nothing is downloaded.
"""

import json
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from one_node import GOES_ON, one_node, report, submit

pytestmark = pytest.mark.processes

SOURCE = Path(__file__).parents[1]
PACKAGES = {"dlrproxy", "protocols", "ring"}


def run(*command, cwd=None, **options) -> str:
    """Its standard output; an error shows what it said."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, SOURCE)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Where the wheel is installed: the directory of its commands."""
    directory = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", directory)
    run(sys.executable, "-m", "pip", "--python", directory, "install", "--no-index", "--no-deps", wheel)
    # A directory in a .pth file is searched, but its own .pth files, the editable install's among them, are not read.
    (site_packages,) = directory.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory / "bin"


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    sources = {str(path.relative_to(SOURCE)) for package in PACKAGES for path in (SOURCE / package).rglob("*.py")}
    assert sources <= set(names)


def test_all_packages_come_from_the_wheel(environment, tmp_path):
    code = f"import json; print(json.dumps([__import__(name).__file__ for name in {sorted(PACKAGES)}]))"
    files = json.loads(run(environment / "python", "-c", code, cwd=tmp_path))
    assert {Path(file).parent.name for file in files} == PACKAGES
    assert all(Path(file).is_relative_to(environment.parent) for file in files)


def test_it_says_its_version(environment, tmp_path):
    version = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["version"]
    assert run(environment / "dlrproxy", "--version", cwd=tmp_path).strip() == f"dlrproxy {version}"


def test_its_sample_configuration_is_a_good_one(environment, tmp_path):
    (tmp_path / "dlrproxy.toml").write_text(run(environment / "dlrproxy", "sample-config", cwd=tmp_path))
    assert "gw1" in run(environment / "dlrproxy", "check-config", "dlrproxy.toml", cwd=tmp_path)


async def test_a_node_runs(environment, tmp_path):
    async with one_node(tmp_path, command=[str(environment / "dlrproxy")]) as scene:
        await scene.node.start()
        bind = await scene.bound()
        gateway = await scene.bound_gateway()
        await submit(gateway, bind, GOES_ON)
        await report(gateway, bind, GOES_ON)
        await scene.stop()
        assert scene.node.said == []
