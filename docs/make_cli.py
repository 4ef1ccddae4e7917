"""Write ``docs/cli.md`` from the help of every verb: ``python docs/make_cli.py``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from synthmed.cli import EXIT_CODES, app
from synthmed.cli.answer import SCHEMA

TARGET = Path(__file__).with_name("cli.md")
WIDTH = 100

HEAD = f"""# The command line

Made from `--help` by `python docs/make_cli.py`; do not edit.

Progress, with its rate and the time left, and errors go to stderr; the outcome goes to stdout. `--quiet` leaves the
progress out. Completion for bash, zsh, fish and PowerShell: `synthmed --install-completion`.

## Exit codes

| code | meaning |
|---|---|
{{codes}}

## `--json`

With it every verb answers with one document on stdout, and nothing else goes there. Its shape is the same for all of
them, also when something is wrong:

```json
{{{{
  "schema": "{SCHEMA}",
  "verb": "audit",
  "exit_code": 3,
  "result": {{{{"verdict": "FAIL"}}}},
  "error": null
}}}}
```

`result` is the verb's own: the audit's `report.json`, `evaluation.json`, the fingerprint, the findings of `verify`,
what `train` measured, paths of what was written.
Where `error` is not null, `result` is, and `error` holds four texts: `what`, `found`, `expected`, `next_step`. A
verdict that is no PASS, and a release that does not verify, are results, with their exit code.
"""


def exit_codes() -> dict[int, str]:
    """Return each exit code with its meaning, as the help lists them."""
    parts = EXIT_CODES.replace("\n", " ").partition(": ")[2].split(" · ")
    pairs = (re.fullmatch(r"(\d+) (.+)", part.strip()) for part in parts)
    return {int(pair[1]): pair[2] for pair in pairs if pair}


def help_of(verb: str = "") -> str:
    """Return what ``synthmed VERB --help`` prints, `WIDTH` columns wide."""
    group: Any = typer.main.get_command(app)
    options = {"info_name": "synthmed", "resilient_parsing": True, "max_content_width": WIDTH, "terminal_width": WIDTH}
    outer = group.make_context(args=[], **options)
    if not verb:
        return str(group.get_help(outer))
    command = group.commands[verb]
    inner = command.make_context(args=[], parent=outer, **(options | {"info_name": verb}))
    return str(command.get_help(inner))


def render() -> str:
    """Return the whole page."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in exit_codes().items())
    verbs = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    parts = [HEAD.format(codes=codes), f"## `synthmed`\n\n```text\n{help_of()}\n```\n"]
    parts += [f"## `synthmed {verb}`\n\n```text\n{help_of(verb)}\n```\n" for verb in verbs]
    return "\n".join("\n".join(line.rstrip() for line in part.splitlines()) + "\n" for part in parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
