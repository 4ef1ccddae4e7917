"""The wheel holds both packages, the configurations and the policies, and runs outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


class Installed:
    """An environment that holds the wheel, entered from a folder outside the repository."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.outside = folder / "venv" / "bin", folder / "outside"
        self.outside.mkdir()

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
        argv = [self.bin / command, *arguments]
        return subprocess.run(argv, cwd=self.outside, env=environment, capture_output=True, text=True)

    def python(self, code: str) -> str:
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = out.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    environment = Installed(folder)
    done = environment.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    assert done.returncode == 0, done.stderr
    site = Path(environment.python("import sysconfig; print(sysconfig.get_path('purelib'))"))
    find = "from importlib.util import find_spec as f; print(f('synthmed').origin, f('privacy').origin, sep='\\n')"
    assert environment.python(find).splitlines() == [str(site / n / "__init__.py") for n in ("synthmed", "privacy")]
    # The dependencies are lent by the running environment; a path in a .pth file comes after the wheel's packages,
    # and .pth files over there, such as that of an editable install, are not read.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert environment.python(find).splitlines() == [str(site / n / "__init__.py") for n in ("synthmed", "privacy")]
    return environment


def test_wheel_holds_what_it_must_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for path in ("synthmed", "privacy"):
        expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / path).rglob("*.py")}
        assert expected <= set(names)
    assert {f"synthmed/report/assets/{name}" for name in ("page.css", "viewer.js")} <= set(names)
    assert {f"synthmed/configs/{p.name}" for p in (ROOT / "configs").glob("*.yaml")} <= set(names)
    weights = ROOT / "synthmed" / "weights"
    assert {p.relative_to(ROOT).as_posix() for p in weights.rglob("*") if p.is_file()} <= set(names)
    assert {f"privacy/policies/{name}.yaml" for name in ("default", "research", "strict")} <= set(names)
    assert {n.split("/")[0].split("-")[0] for n in names} == {"synthmed", "privacy"}
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_commands_answer(installed: Installed) -> None:
    from synthmed import __version__

    assert installed.run("synthmed", "--version").stdout == f"synthmed {__version__}\n"
    for command, *arguments in (("synthmed", "--help"), ("python", "-m", "privacy", "--help")):
        done = installed.run(command, *arguments)
        assert done.returncode == 0, done.stderr
        assert "audit" in done.stdout


def test_configurations_and_policies_are_found(installed: Installed) -> None:
    code = "from synthmed.config import load_config, find_config; print(find_config('phantom')); load_config('phantom')"
    assert installed.python(code).endswith("site-packages/synthmed/configs/phantom.yaml")
    code = "from privacy.policy import BUNDLED, load_policy; print(*(load_policy(n).name for n in BUNDLED))"
    assert installed.python(code) == "default research strict"


def test_pretrained_models_are_found(installed: Installed) -> None:
    from synthmed.models.library import shipped_models

    done = installed.run("synthmed", "models", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["result"]["models"]
    assert [model["name"] for model in listed] == list(shipped_models())
    assert all("site-packages" in model["folder"] for model in listed)


def test_the_release_can_be_verified_from_the_wheel(installed: Installed) -> None:
    (installed.outside / "no-release").mkdir()
    done = installed.run("synthmed", "verify", "no-release")
    assert done.returncode == 8, done.stderr
    assert "no-release is no release; found no SHA256SUMS in it" in done.stderr
