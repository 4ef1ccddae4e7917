"""What a verb answers: text for a person, or with ``--json`` one document of one shape for another program.

    {"schema": "synthmed-answer/1", "verb": "audit", "exit_code": 3, "result": {...}, "error": null}

`result` is the verb's own; it is null where `error` is not, which then holds the strings what, found, expected and
next_step (any but the first may be empty). `exit_code` is the process's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

SCHEMA = "synthmed-answer/1"
FLAG = "--json"

Json = Annotated[bool, typer.Option(FLAG, help="Answer with one JSON document on stdout; nothing else goes there.")]


@dataclass(frozen=True)
class Answer:
    """The outcome of a verb.

    Attributes
    ----------
    verb : str
    result : mapping
        What JSON can hold.
    text : str
        The same for a person.
    as_json : bool
        Whether ``--json`` was given.
    exit_code : int
    """

    verb: str
    result: Mapping[str, Any]
    text: str
    as_json: bool
    exit_code: int = 0

    def __str__(self) -> str:
        return _dump(self.verb, self.exit_code, self.result, None) if self.as_json else self.text


def error_document(verb: str, exit_code: int, error: BaseException) -> str:
    """Return the JSON document of a verb that failed."""
    parts = {name: str(getattr(error, name, "")) for name in ("what", "found", "expected", "next_step")}
    if not parts["what"]:
        message = error.format_message() if hasattr(error, "format_message") else str(error)  # the parser's own, or not
        parts["what"] = " ".join(message.split()) or type(error).__name__
    return _dump(verb, exit_code, None, parts)


def _dump(verb: str, exit_code: int, result: Mapping[str, Any] | None, error: Mapping[str, str] | None) -> str:
    content = {"schema": SCHEMA, "verb": verb, "exit_code": exit_code, "result": result, "error": error}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
