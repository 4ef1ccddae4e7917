"""The rules that keep the rooms apart, read from the source with `ast`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import LONGEST
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# Left before right. A module that is not named here belongs to whichever of these imports it.
LAYERS = (
    {"errors", "words"},
    {"volume", "files", "processes", "config", "io"},
    {"cohort"},
    {"prepare", "models", "diffusion"},
    {"training", "sampling", "evaluation", "report"},
    {"export", "bundle"},
    {"pipeline", "send"},
    {"run_report"},
    {"cli"},
)
LAYER_OF = {f"synthmed.{name}": layer for layer, names in enumerate(LAYERS) for name in names}
MAY_IMPORT_PRIVACY = {"export", "pipeline", "demo", "cli"}
HEAVY = ("torch", "monai", "highdicom", "skimage", "matplotlib", "pynetdicom", "dicomweb_client")


def sources(package: str) -> dict[str, Path]:
    """Module name -> file."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports(module: str, file: Path) -> Iterator[str]:
    """Yield the full name of everything that a file imports, at its top or inside a function."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Module of synthmed -> modules of synthmed that it imports."""
    files = sources("synthmed")
    edges: dict[str, set[str]] = {}
    for module, file in files.items():
        targets = {name if name in files else name.rpartition(".")[0] for name in imports(module, file)}
        edges[module] = {t for t in targets if t in files and t not in {module, "synthmed"}}
    return edges


def reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = edges[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def layer(module: str) -> int | None:
    return LAYER_OF.get(".".join(module.split(".")[:2]))


def test_imports_run_one_way() -> None:
    edges = graph()
    wrong = [
        f"{module} imports {target}"
        for module in edges
        for target in reachable(edges, module)
        if (own := layer(module)) is not None and (its := layer(target)) is not None and its > own
    ]
    assert wrong == []


def test_no_module_imports_itself_through_others() -> None:
    edges = graph()
    # A package and its own submodules are one room.
    rooms = {module: ".".join(module.split(".")[:2]) for module in edges}
    between: dict[str, set[str]] = {room: set() for room in rooms.values()}
    for module, targets in edges.items():
        between[rooms[module]] |= {rooms[t] for t in targets} - {rooms[module]}
    assert [room for room in between if room in reachable(between, room)] == []


def test_privacy_stands_alone() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, file in sources("privacy").items()
        for name in imports(module, file)
        if name.split(".")[0] in {"synthmed", "monai"}
    ]
    assert wrong == []


def test_few_rooms_import_privacy() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, file in sources("synthmed").items()
        for name in imports(module, file)
        if name.split(".")[0] == "privacy" and module.split(".")[1] not in MAY_IMPORT_PRIVACY
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["synthmed", "privacy"])
def test_no_assert_and_no_bare_except(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sources(package).values()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.ExceptHandler) and node.type is None)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["synthmed", "privacy"])
def test_no_path_of_a_machine(package: str) -> None:
    pattern = re.compile(r"[\"'](/(home|root|work|Users|mnt)/|[A-Z]:\\\\)")
    wrong = [str(f.relative_to(ROOT)) for f in sources(package).values() if pattern.search(f.read_text("utf-8"))]
    assert wrong == []


@pytest.mark.parametrize(
    "module",
    ["synthmed", "synthmed.cli", "synthmed.config", "synthmed.processes", "synthmed.export", "synthmed.send"],
)
def test_light_modules_import_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_requirement_has_one_pin_inside_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tables = [project["build-system"]["requires"], project["project"]["dependencies"]]
    tables += project["project"]["optional-dependencies"].values()
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    versions = {canonicalize_name(name): version for name, version in pins}
    assert len(versions) == len(pins)
    assert versions["torch"] == "2.13.0"
    required = [Requirement(text) for table in tables for text in table]
    for requirement in (r for r in required if r.name != project["project"]["name"]):  # an extra may name another
        pinned = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), f"{requirement} is pinned to {pinned}"


def test_the_test_files_that_begin_first_are_there() -> None:
    assert set(LONGEST) <= {file.name for file in (ROOT / "tests").rglob("test_*.py")}
