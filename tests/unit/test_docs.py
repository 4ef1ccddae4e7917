"""The documentation against the code: commands parse, settings exist, Python runs, links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from privacy.__main__ import _parser
from privacy.policy import MEMBERSHIP, judge, load_policy
from synthmed.cli import app
from synthmed.config import Config, apply_overrides, parse_config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import make_cli  # noqa: E402 (it lies beside what it makes)

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "privacy" / "README.md"])
PROSE = [page for page in PAGES if page.name not in ("cli.md", "CHANGELOG.md")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        first = self.text.strip().splitlines()[0] if self.text.strip() else ""
        return f"{self.page.relative_to(ROOT)}: {first[:40]}"


def blocks(*languages: str) -> list[Block]:
    found = [Block(page, *match) for page in PROSE for match in FENCE.findall(page.read_text(encoding="utf-8"))]
    return [block for block in found if block.language in languages]


def command_lines() -> list[tuple[str, list[str]]]:
    """Return every line of a block that calls this project, with the arguments after the program's name."""
    lines = [(f"{block.page.name}: {line}", line) for block in blocks("bash", "") for line in block.text.splitlines()]
    found = []
    for where, line in lines:
        if line.startswith(("torchrun ", "srun ")):
            line = line[line.index(" synthmed ") + 1 :]
        if line.startswith(("synthmed ", "python -m privacy ")):
            words = shlex.split(line, comments=True)
            found.append((where, words[: words.index(">")] if ">" in words else words))
    return found


def examples() -> Iterator[tuple[str, list[str]]]:
    """Yield the example of every verb's help."""
    for command in app.registered_commands:
        text = " ".join((command.callback.__doc__ or "").split())
        yield f"--help: {command.callback.__name__}", shlex.split(text.partition("Example: ")[2])


@cache
def verbs() -> Any:
    return typer.main.get_command(app)


def parse(words: list[str]) -> Any:
    """Parse a command line of `synthmed` down to its verb's options; nothing is run."""
    group = verbs()
    outer = group.make_context("synthmed", words[1:2])
    name, command, _ = group.resolve_command(outer, words[1:2])
    return command.make_context(name, words[2:], parent=outer)


def test_there_is_something_to_test() -> None:
    assert len(command_lines()) > 30
    assert len(blocks("python")) >= 3
    assert len(list(examples())) == len(app.registered_commands)


@pytest.mark.parametrize(("where", "words"), [*command_lines(), *examples()], ids=lambda value: str(value)[:60])
def test_commands_parse(where: str, words: list[str]) -> None:
    if words[0] == "python":
        _parser().parse_args(words[3:])
        return
    found = parse(words)
    config = apply_overrides(Config(), found.params.get("set_") or [])
    assert isinstance(config, Config)


@pytest.mark.parametrize("words", [["synthmed", "run"], ["synthmed", "run", "x", "--fast"], ["synthmed", "runn", "x"]])
def test_wrong_commands_do_not_parse(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"target|--fast|runn"):
        parse(words)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_configurations_are_accepted(block: Block) -> None:
    assert parse_config(yaml.safe_load(block.text)) != Config()


AUDIT = ROOT / "privacy" / "README.md"
"""Its Python needs folders that only its reader has."""


@pytest.mark.parametrize("page", sorted({b.page for b in blocks("python")} - {AUDIT}), ids=lambda page: page.name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page share their names, as a reader would type them one after another."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        if block.page == page:
            exec(compile(block.text, str(block), "exec"), names)
    assert names.keys() - {"__builtins__"}


def test_the_call_in_the_audits_readme_fits() -> None:
    import privacy

    code = "\n".join(block.text for block in blocks("python") if block.page == AUDIT)
    [call] = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "privacy.audit"
    ]
    inspect.signature(privacy.audit).bind(*call.args, **{keyword.arg: None for keyword in call.keywords if keyword.arg})


def test_what_the_importer_of_the_how_to_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        if block.page.name == "own-importer.md":
            exec(compile(block.text, str(block), "exec"), names)
    assert [(d.name, d.subject) for d in names["found"].drafts] == [
        ("lyon_P1_first", "lyon_P1"),
        ("lyon_P2_first", "lyon_P2"),
    ]
    assert all(draft.label.is_file() for draft in names["found"].drafts)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_is_reached_from_the_index() -> None:
    seen, todo = set(), [ROOT / "docs" / "index.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
        pages = {(page.parent / link).resolve() for link in links if link.endswith(".md") and "://" not in link}
        todo += [target for target in pages - seen if target.is_relative_to(ROOT / "docs")]
    assert seen >= set((ROOT / "docs").rglob("*.md"))


def test_the_reference_is_what_help_says() -> None:
    current = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert current == make_cli.render(), "run: python docs/make_cli.py"
    for command in app.registered_commands:
        assert f"\n## `synthmed {command.name or command.callback.__name__}`\n" in current


def test_the_specimen_is_a_record_as_the_audit_writes_it_now() -> None:
    from privacy.writing import release_markdown
    from synthmed.models.library import shipped_models

    def headings(text: str) -> list[str]:
        return re.findall(r"^##? .+$", text, re.MULTILINE)

    record = json.loads((shipped_models()["phantom-heads"] / "audit" / "report.json").read_text(encoding="utf-8"))
    specimen = (ROOT / "docs" / "specimen-audit.md").read_text(encoding="utf-8")
    assert headings(specimen)[1:] == headings(release_markdown(record))
    measured = record["measurements"] | dict.fromkeys(MEMBERSHIP, 0.01)
    assert ", a weak sign of who was in training (limit 0.01)" in judge(measured, load_policy("default"))[1][0]
    assert ", a weak sign of who was in training (limit 0.01)" in specimen


def test_the_steward_is_sent_to_parts_of_the_page_that_are_there() -> None:
    from synthmed.report.page import _SECTIONS

    text = (ROOT / "docs" / "steward.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`report\.html`, (?:The )?([A-Z]?\w+)", text))
    assert named == {"Verdict", "Volumes", "Training", "audit"}
    assert {name.lower() for name in named} <= {name.lower() for _, name in _SECTIONS}


def test_the_tables_of_exit_codes_agree() -> None:
    listed = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(map(int, listed)) == sorted(make_cli.exit_codes())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_path_of_a_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(home|root|work|Users|mnt|tmp)/", page.read_text(encoding="utf-8"))
