"""The verb that lists pretrained models, and what `generate --model` does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synthmed.cli import completion
from synthmed.cli.answer import Answer, Json
from synthmed.cli.app import app
from synthmed.errors import ConfigError
from synthmed.words import counted

if TYPE_CHECKING:
    from synthmed.models.library import Entry

PretrainedModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="A pretrained model, by name or folder, in place of a run.", autocompletion=completion.models
    ),
]
SampleFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="With --model: where volumes go [default: ./NAME-samples].")
]
SampleSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="With --model: another seed than that of the audited volumes.")
]
Conditions = Annotated[
    list[str] | None,
    typer.Option("--condition", metavar="KEY=VALUE", help="With --model: what to ask of every volume; repeatable."),
]
_COLUMNS = ("name", "modality", "grid", "labels", "conditions", "licence", "size")


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="Show this model's card.", autocompletion=completion.models)
    ] = None,
    json: Json = False,
) -> Answer:
    """List the pretrained models, or show the card of one.

    The card tells data, licence, training, figures, audit and limits.

    Example: synthmed models hippocampus-mri
    """
    from synthmed.models.library import CARD, find_model, read_entry, shipped_models

    if name is None:
        found = {key: (read_entry(folder), folder) for key, folder in shipped_models().items()}
        listed = [_described(entry, folder) for entry, folder in found.values()]
        return Answer("models", {"models": listed}, _table(listed), json)
    folder = find_model(name)
    card = (folder / CARD).read_text(encoding="utf-8")
    return Answer("models", _described(read_entry(folder), folder) | {"card": card}, card.rstrip(), json)


def draw_pretrained(
    model: str,
    target: str | None,
    number: int | None,
    output: Path | None,
    seed: int | None,
    condition: Sequence[str] | None,
    run_dir: Path | None,
    set_: Sequence[str] | None,
    quiet: bool,
    as_json: bool,
) -> Answer:
    """Draw from a pretrained model and say how much of it was audited."""
    from synthmed.pretrained import DEFAULT_NUMBER, draw

    if target is not None or run_dir is not None:
        named = target if target is not None else "--run-dir"
        raise ConfigError("--model draws without a run", found=f"{named} beside it", expected="one of the two")
    start = time.monotonic()
    drawn = draw(
        model,
        output or Path(f"{Path(model).name}-samples"),
        DEFAULT_NUMBER if number is None else number,
        seed=seed,
        condition=_pairs(condition or ()),
        overrides=set_ or (),
        progress=not quiet,
    )
    seconds, folder = time.monotonic() - start, drawn.folder
    text = f"{counted(drawn.volumes, 'volume')} in {folder}, in {seconds:.0f} s. "
    text += _audit_words(drawn.volumes, drawn.audited)
    result = {"directory": str(folder), "volumes": drawn.volumes, "table": str(folder / "samples.csv")}
    return Answer("generate", result | {"model": drawn.entry.name, "audited": drawn.audited}, text, as_json)


def check_options_of_a_run(
    target: str | None, output: Path | None, seed: int | None, condition: Sequence[str] | None
) -> None:
    """Refuse what a run does not take, or the lack of one; each with the way to say it."""
    if target is None:
        raise ConfigError(
            "There is nothing to draw from", expected="a run, or --model NAME", next_step="List models: synthmed models"
        )
    for option, value, instead in (
        ("--output", output, "A run's volumes go to its generate/; name the run's place by --run-dir"),
        ("--seed", seed, "For a run: --set seed=N"),
        ("--condition", condition, "A run draws its conditions as in training"),
    ):
        if value is not None:
            raise ConfigError(f"{option} goes with --model only", next_step=instead)


def _audit_words(volumes: int, audited: int) -> str:
    if audited == volumes:
        return "The model's audit looked at every one of them."
    which = "None of them was audited" if not audited else f"Not audited: {volumes - audited} of them"
    return f"{which}. Audit them before passing them on (python -m privacy audit --help)."


def _pairs(conditions: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in conditions]
    for text, (key, equals, _) in zip(conditions, pairs, strict=True):
        if not equals or not key.strip():
            raise ConfigError(f"--condition {text} cannot be read", expected="KEY=VALUE, such as age=70")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _described(entry: Entry, folder: Path) -> dict[str, Any]:
    from synthmed.models.library import size_of

    return entry.model_dump(mode="json", by_alias=True) | {"folder": str(folder), "bytes": size_of(folder)}


def _table(listed: Sequence[Mapping[str, Any]]) -> str:
    if not listed:
        return "No pretrained model comes with this installation. Make one of a run: synthmed publish --help"
    rows = [_COLUMNS, *(_row(model) for model in listed)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"\nDraw from one: synthmed generate --model {listed[0]['name']} -n 16"])


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    grid, edge = "x".join(map(str, model["grid"])), "x".join(f"{mm:g}" for mm in model["spacing"])
    return (
        model["name"],
        model["modality"],
        f"{grid} of {edge} mm",
        ", ".join(model["labels"].values()) or "none",
        ", ".join(map(_asked, model["conditions"].items())) or "none",
        model["license"],
        f"{model['bytes'] / 1e6:.1f} MB",
    )


def _asked(condition: tuple[str, Sequence[Any]]) -> str:
    name, values = condition
    if isinstance(values[0], str):
        return f"{name} ({'/'.join(value or 'not known' for value in values)})"
    return f"{name} ({values[0]:.3g} to {values[1]:.3g})"
