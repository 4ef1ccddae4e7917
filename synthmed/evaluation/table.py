"""`evaluation.json` as a table that a person can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synthmed.words import counted

Figure = Mapping[str, Any]
Row = tuple[str, str, str, str, str, str]
HEADER: Row = ("Figure", "Value", "95 % interval", "Real scans", "x floor", "n")

SPACES = {
    "encoder": "self-taught encoder",
    "random_convolutions": "random convolutions",
    "radiomics": "radiomics",
}
MEASURES = {
    "kid": "kernel distance (KID)",
    "frechet": "Frechet distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "modes": "mode coverage",
    "auc": "classifier AUC (0.5: not told apart)",
}
BRIEF = ("kid", "frechet", "recall", "auc")
"""What is shown of every space but the first."""
_SKILLS = {"scalar": "correlation", "class": "auc"}


def format_evaluation(result: Mapping[str, Any]) -> str:
    """Return the figures of an evaluation, each with its interval and what real scans give.

    Parameters
    ----------
    result : mapping
        What `evaluate` returned, or wrote.
    """
    parts = {
        "Utility": list(_utility(result["utility"])),
        "Conditions": list(_conditions(result["conditions"])),
        **_fidelity(result["distance"]),
        "Diversity": list(_diversity(result["diversity"], result["unit"])),
        "Structures": list(_labels(result["labels"])),
        "Models": list(_models(result)),
    }
    shown = {title: rows for title, rows in parts.items() if rows}
    everything = [HEADER, *(row for rows in shown.values() for row in rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(HEADER))]
    lines = [_line(HEADER, widths), "  ".join("-" * width for width in widths)]
    for title, rows in shown.items():
        lines += [title, *(_line(row, widths) for row in rows)]
    return "\n".join([*lines, *_notes(result)])


def _line(row: Row, widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _utility(utility: Mapping[str, Any]) -> Iterator[Row]:
    if not utility["measured"]:
        return
    sets = utility["sets"]
    real = sets["trtr"]
    for name, dice in sets["tstr"]["structures"].items():
        yield _row(f"Dice, {name}", dice, real["structures"][name])
    yield _row("Dice, trained on synthetic (TSTR)", sets["tstr"]["dice"], real["dice"], utility.get("ratio"))
    yield _row("Dice, trained on real + synthetic", sets["both"]["dice"], real["dice"], utility.get("gain"))
    for size in utility["sizes"]:
        yield _row(f"  {counted(size['patients'], 'patient')} + synthetic", size["both"], size["trtr"], size["gain"])


def _conditions(conditions: Mapping[str, Any]) -> Iterator[Row]:
    for name, found in conditions.get("covariates", {}).items():
        skill = _SKILLS[found["kind"]]
        real = found.get("holdout", {})
        for role, title, ratio in (
            ("synthetic", "asked and seen", "ratio"),
            ("tstr", "trained on synthetic", "tstr_ratio"),
        ):
            if role in found:
                n = {"n": found[role]["n"]}
                yield _row(f"{name}, {title}: {skill}", _with(found[role][skill], n), real.get(skill), found[ratio])
                if role == "synthetic" and "slope" in found[role]:
                    yield _row("  slope", _with(found[role]["slope"], n), real.get("slope"))


def _fidelity(distance: Mapping[str, Any]) -> dict[str, list[Row]]:
    there = [name for name in SPACES if name in distance]
    return {
        f"Fidelity, {SPACES[name]}": [
            _row(title, _with(distance[name][key]["synthetic"], {"n": _sizes(distance[name])}),
                 distance[name][key]["floor"], None if key == "auc" else distance[name][key]["ratio"])
            for key, title in MEASURES.items()
            if name == there[0] or key in BRIEF
        ]
        for name in there
    }  # fmt: skip


def _sizes(found: Mapping[str, Any]) -> str:
    return f"{found['n']} / {found['n_holdout']}"


def _diversity(diversity: Mapping[str, Any], unit: str) -> Iterator[Row]:
    if diversity["synthetic"] and diversity["real"]:
        yield _row("MS-SSIM of pairs", diversity["synthetic"], diversity["real"])
    moved = diversity["intensities"]
    yield _row(f"intensities, moved by ({unit})", moved["synthetic"], moved["floor"], moved["ratio"])


def _labels(labels: Mapping[str, Any]) -> Iterator[Row]:
    for name, sets in labels.items():
        synthetic, holdout, n = sets["synthetic"], sets["holdout"], str(sets["synthetic"]["n"])
        real = f"{holdout['mean_mm3']:.0f}, SD {holdout['sd_mm3']:.0f}"
        yield f"{name}: volume (mm3)", f"{synthetic['mean_mm3']:.0f}", f"SD {synthetic['sd_mm3']:.0f}", real, "", n
        yield "  volume, KS to held-out", f"{synthetic['ks']:.3f}", "", f"{sets['train']['ks']:.3f}", "", n
        for key, shape in sets["shape"].items():
            told = _with(shape["synthetic"]["ks"], {"n": shape["synthetic"]["n"]})
            yield _row(f"  {key}, KS to held-out", told, shape["train"]["ks"])
        for scalar, found in sets["against"].items():
            yield from _against(scalar, found)
        if synthetic["empty"] > 0:
            yield f"  without {name}", f"{100 * synthetic['empty']:.1f} %", "", f"{100 * holdout['empty']:.1f} %", "", n


def _against(scalar: str, found: Mapping[str, Any]) -> Iterator[Row]:
    made, real = found["synthetic"], found["holdout"]
    if made and real:
        for key, title in (("slope", f"  volume against {scalar}, slope"), ("correlation", "    correlation")):
            yield _row(title, _with(made[key], {"n": made["n"]}), real[key])


def _models(result: Mapping[str, Any]) -> Iterator[Row]:
    kept, loss = result["autoencoder"], result["denoiser"]
    if "psnr_db" in kept:
        yield _row("autoencoder PSNR, held-out (dB)", kept["psnr_db"], None)
    for name, dice in kept.get("dice", {}).items():
        yield _row(f"autoencoder Dice, {name}", dice, None)
    if loss.get("holdout_loss") is not None:
        trained = "" if loss.get("train_loss") is None else f"training {loss['train_loss']:.4f}"
        yield "denoising loss, held-out", f"{loss['holdout_loss']:.4f}", "", trained, "", ""


def _with(figure: Figure | None, more: Figure) -> Figure | None:
    return None if figure is None else {**figure, **more}


def _row(title: str, figure: Figure | None, real: Figure | None, ratio: Figure | None = None) -> Row:
    value = interval = "-"
    if figure:
        value, interval = _number(figure["value"]), f"{_number(figure['low'])} to {_number(figure['high'])}"
    return (
        f"  {title}",
        value,
        interval,
        "" if real is None else f"{_number(real['value'])} ({_number(real['low'])} to {_number(real['high'])})",
        "" if ratio is None else f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
        str((figure or {}).get("n", "")),
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    n = result["n"]
    yield (
        f"{counted(n['synthetic'], 'synthetic case')}; {counted(n['holdout'], 'held-out case')} of "
        f"{counted(n['holdout_patients'], 'patient')}; {counted(n['train'], 'training case')} of {n['train_patients']}."
        " Intervals resample patients."
    )
    yield "Real scans: training against held-out ones, or trained on real. x floor: 1 is as good as real scans."
    for part, title in (("distance", "Distances"), ("utility", "Utility"), ("conditions", "Conditions")):
        if not result[part]["measured"]:
            yield f"{title} not measured: {result[part]['reason']}."
