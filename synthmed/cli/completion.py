"""What a shell offers for an argument; called at a press of TAB only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def targets(incomplete: str) -> list[str]:
    """Return the shipped configurations that begin so; where there is none the shell offers files."""
    from synthmed.config import shipped_configs

    return [name for name in shipped_configs() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Return the pretrained models that begin so; where there is none the shell offers files."""
    from synthmed.models.library import shipped_models

    return [name for name in shipped_models() if name.startswith(incomplete)]


def settings(incomplete: str) -> list[str]:
    """Return the keys that ``--set`` takes and that begin so."""
    from synthmed.config import Config

    return [f"{key}=" for key in _keys(Config) if key.startswith(incomplete)]


def _keys(section: Any, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
