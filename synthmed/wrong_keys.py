"""What pydantic says of a wrong configuration, in one line that names the key that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from synthmed.errors import ConfigError


def explain(error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """Return the first thing that is wrong with a configuration.

    Parameters
    ----------
    error : ValidationError
    model : type of BaseModel
        What the whole configuration was read as.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        found = "" if isinstance(first.get("input"), dict) else repr(first.get("input"))
        what = f"Configuration key {where or 'of the run'} is wrong"
        if first["type"] == "value_error":
            return ConfigError(f"{what}: {first['msg'].removeprefix('Value error, ')}", found=found)
        return ConfigError(what, found=found, expected=first["msg"])
    *parents, last = (str(part) for part in first["loc"])
    known = list(_section(model, parents).model_fields)
    close = difflib.get_close_matches(last, known, n=1)
    hint = f"Did you mean {'.'.join([*parents, close[0]])}?" if close else f"Known keys: {', '.join(known)}"
    return ConfigError(f"Unknown configuration key {where}", next_step=hint)


def _section(model: type[BaseModel], parents: Iterable[str]) -> type[BaseModel]:
    section: Any = model
    for parent in parents:
        # The keys of a mapping are the user's own; what lies below each is of one kind.
        section = get_args(section)[1] if get_origin(section) is dict else section.model_fields[parent].annotation
    return section  # type: ignore[no-any-return]
