"""`evaluation.json` as a table that a person can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Row = tuple[str, str, str, str, str]
HEADER: Row = ("Figure", "Value", "95 % interval", "Compare with", "n")


def format_evaluation(result: Mapping[str, Any]) -> str:
    """Return the figures of an evaluation, each with its interval and what to compare it with.

    Parameters
    ----------
    result : mapping
        What `evaluate` returned, or wrote.
    """
    rows = [HEADER, *_reconstruction(result), *_distances(result), *_diversity(result), *_labels(result)]
    rows += list(_utility(result))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_notes(result)])


def _reconstruction(result: Mapping[str, Any]) -> Iterator[Row]:
    kept = result["autoencoder"]
    if "psnr_db" in kept:
        yield _row("autoencoder PSNR, held-out (dB)", kept["psnr_db"], f"SD {kept['psnr_db']['sd']:.2f}", digits=2)
    for name, dice in kept.get("dice", {}).items():
        yield _row(f"autoencoder Dice, {name}", dice, f"SD {dice['sd']:.3f}")
    loss = result["denoiser"]
    if loss.get("holdout_loss") is not None:
        yield "denoising loss, held-out", f"{loss['holdout_loss']:.4f}", "", _training_loss(loss), ""


def _training_loss(loss: Mapping[str, Any]) -> str:
    return "" if loss.get("train_loss") is None else f"training {loss['train_loss']:.4f}"


def _distances(result: Mapping[str, Any]) -> Iterator[Row]:
    for features, title in (("random_convolutions", "random convolutions"), ("radiomics", "radiomics")):
        found = result["distance"].get(features, {})
        for key, name in (("kid", "KID"), ("frechet", "Frechet")):
            if key in found:
                floor = found[key]["floor"]
                compare = f"real {floor['value']:.3f} ({floor['low']:.3f} to {floor['high']:.3f})"
                size = f"{found['n']} / {found['n_holdout']}"
                yield _row(f"{name}, {title}", found[key]["synthetic"] | {"n": size}, compare)


def _diversity(result: Mapping[str, Any]) -> Iterator[Row]:
    pairs = result["diversity"]
    if pairs["synthetic"] and pairs["real"]:
        real = pairs["real"]
        compare = f"real {real['value']:.3f} ({real['low']:.3f} to {real['high']:.3f})"
        yield _row("MS-SSIM of pairs", pairs["synthetic"], compare)


def _labels(result: Mapping[str, Any]) -> Iterator[Row]:
    for name, sets in result["labels"].items():
        synthetic, holdout = sets["synthetic"], sets["holdout"]
        value = f"{synthetic['mean_mm3']:.0f}"
        real = f"real {holdout['mean_mm3']:.0f}, SD {holdout['sd_mm3']:.0f}"
        yield f"volume, {name} (mm3)", value, f"SD {synthetic['sd_mm3']:.0f}", real, str(synthetic["n"])
        compare = f"training {sets['train']['ks']:.3f}"
        yield f"volume, {name}: KS to held-out", f"{synthetic['ks']:.3f}", "", compare, str(synthetic["n"])
        if synthetic["empty"] > 0:
            compare = f"real {100 * holdout['empty']:.1f} %"
            yield f"without {name}", f"{100 * synthetic['empty']:.1f} %", "", compare, str(synthetic["n"])


def _utility(result: Mapping[str, Any]) -> Iterator[Row]:
    utility = result["utility"]
    if not utility["measured"]:
        return
    tstr, trtr = utility["sets"]["tstr"], utility["sets"]["trtr"]
    for name, dice in tstr["structures"].items():
        real = trtr["structures"][name]
        yield _row(
            f"segmenter Dice, {name}", dice, f"real {real['value']:.3f} ({real['low']:.3f} to {real['high']:.3f})"
        )
    real = trtr["dice"]
    compare = f"real {real['value']:.3f} ({real['low']:.3f} to {real['high']:.3f})"
    yield _row("segmenter Dice, mean", tstr["dice"], compare)
    if utility["ratio"]:
        yield _row("  as a share of real", utility["ratio"] | {"n": tstr["dice"]["n"]}, "1")


def _row(title: str, figure: Mapping[str, Any], compare: str, digits: int = 3) -> Row:
    interval = f"{figure['low']:.{digits}f} to {figure['high']:.{digits}f}"
    return title, f"{figure['value']:.{digits}f}", interval, compare, str(figure["n"])


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    n = result["n"]
    yield (
        f"{n['synthetic']} synthetic cases; {n['holdout']} held-out cases of {n['holdout_patients']} patients; "
        f"{n['train']} training cases of {n['train_patients']}. Intervals resample patients."
    )
    for part, title in (("distance", "Distances"), ("utility", "Utility")):
        if not result[part]["measured"]:
            yield f"{title} not measured: {result[part]['reason']}."
