"""Fidelity and utility: each figure with its interval and what real scans give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synthmed.report.charts import strip
from synthmed.report.facts import Facts
from synthmed.report.markup import DRAWN, Content, Markup, element, interval, number, paragraph, section, share, table
from synthmed.words import counted

_FEATURES = {"encoder": "self-taught encoder", "random_convolutions": "random convolutions", "radiomics": "radiomics"}
_DISTANCES = {"kid": "Kernel distance (KID)", "frechet": "Fréchet distance"}
_SHARES = {
    "precision": "Precision: synthetic cases among real ones",
    "recall": "Recall: real cases among synthetic ones",
    "density": "Density",
    "coverage": "Coverage",
    "modes": "Mode coverage",
    "auc": "A classifier tells them apart (AUC)",
}
_SIZES = {"synthetic": "synthetic volume", "holdout": "scan", "holdout_patients": "held-out patient"}
_SETS = {"tstr": "synthetic alone", "trtr": "real alone", "both": "real and synthetic"}
_SKILLS = {"scalar": ("correlation", "Correlation"), "class": ("auc", "AUC")}
_ROLES = {
    "holdout": "held-out scans, by a predictor of real scans",
    "synthetic": "synthetic volumes, by the same",
    "tstr": "held-out scans, by a predictor of synthetic volumes",
}


def quality_section(facts: Facts) -> Markup:
    """Return how like real scans the volumes are, and what they are good for."""
    result = facts.evaluation
    if result is None:
        return section("quality", "Use and likeness", [paragraph("Neither was measured for this set.")])
    n = result.get("n", {})
    sizes = {key: counted(n.get(key, "-"), noun) for key, noun in _SIZES.items()}
    parts = [
        paragraph(
            f"{sizes['synthetic']}; judged by {sizes['holdout']} of {sizes['holdout_patients']}. "
            "Intervals, at 95 %, resample patients."
        ),
        *_utility(result.get("utility", {})),
        *_conditions(result.get("conditions", {})),
        *_distances(result.get("distance", {})),
        *_shares(result.get("distance", {})),
        *_diversity(result.get("diversity", {})),
        *_labels(result.get("labels", {})),
        *_reconstruction(result.get("autoencoder", {})),
    ]
    return section("quality", "Use and likeness", parts)


def _utility(utility: Mapping[str, Any]) -> Iterator[Markup]:
    yield element("h3", "What are they good for?")
    if not utility.get("measured"):
        yield paragraph(f"Not measured: {utility.get('reason', 'no figures')}.")
        return
    sets = utility["sets"]
    rows: list[Sequence[Content]] = []
    for key in ("mean", *sets["trtr"].get("structures", {})):
        real = _dice(sets["trtr"], key)
        for name, found in sets.items():
            dice = _dice(found, key)
            size = f", {counted(found['n_training'], 'scan')}" if "n_training" in found else ""
            drawn = strip(dice["low"], dice["value"], dice["high"], (0, 1), mark=real["value"])
            rows.append((key.capitalize(), f"{_SETS.get(name, name)}{size}", _interval(dice), drawn))
    yield paragraph(
        "A segmenter is trained on each set and tested on held-out patients. The upright line is what training on real "
        "scans reaches, the ceiling for a synthetic set."
    )
    yield table("Dice on held-out patients, by structure", ("Structure", "Trained on", "Dice", DRAWN), rows)
    if utility.get("ratio"):
        ratio = utility["ratio"]
        yield paragraph(f"Synthetic training reaches {_interval(ratio)} of what real training reaches.")
    if utility.get("gain"):
        yield paragraph(f"Real and synthetic scans together reach {_interval(utility['gain'])} of it.")
    yield from _sizes(utility.get("sizes", ()))


def _sizes(curve: Sequence[Mapping[str, Any]]) -> Iterator[Markup]:
    rows = [(str(p["patients"]), _interval(p["trtr"]), _interval(p["both"]), _maybe(p["gain"])) for p in curve]
    if rows:
        head = ("Real patients", "Real alone", "Real and synthetic", "Gain")
        yield table("Dice with few real patients, alone and beside the synthetic set", head, rows)


def _conditions(conditions: Mapping[str, Any]) -> Iterator[Markup]:
    rows: list[Sequence[Content]] = []
    for name, found in conditions.get("covariates", {}).items():
        key, measure = _SKILLS[found["kind"]]
        for role, title in _ROLES.items():
            if role in found:
                slope = found[role].get("slope")
                rows.append((name, title, f"{measure} {_maybe(found[role][key])}", _maybe(slope) if slope else ""))
    if rows:
        yield element("h3", "Is what was asked for true?")
        yield paragraph(
            "A predictor that learned from real scans tells each covariate from held-out scans, and from synthetic "
            "volumes against what they were asked for. Equal figures say that a condition is followed."
        )
        yield table("Conditions, as a predictor sees them", ("Covariate", "Told from", "Skill", "Slope"), rows)


def _dice(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    chosen: Mapping[str, Any] = found["dice"] if key == "mean" else found["structures"][key]
    return chosen


def _distances(distance: Mapping[str, Any]) -> Iterator[Markup]:
    rows: list[Sequence[Content]] = []
    for features, text in _FEATURES.items():
        for key, name in _DISTANCES.items():
            if not _measured(distance.get(features, {}).get(key)):
                continue
            found, floor = distance[features][key]["synthetic"], distance[features][key]["floor"]
            span = min(0.0, found["low"], floor["low"]), max(found["high"], floor["high"])
            times = _maybe(distance[features][key].get("ratio"))
            rows.append(
                (f"{name}, {text}", _interval(found), _interval(floor), times, _strip(found, span, floor["value"]))
            )
    if rows:
        yield element("h3", "How like real scans are they?")
        yield paragraph(
            "Distance between the synthetic and the held-out set; smaller is better. The floor is the distance of "
            "training scans from held-out ones: no generator needs to be closer. Times the floor, 1 is as good as real."
        )
        yield table(
            "Distances with their floor", ("Distance", "Synthetic", "Floor (real)", "Times the floor", DRAWN), rows
        )


def _shares(distance: Mapping[str, Any]) -> Iterator[Markup]:
    there = [distance[name] for name in _FEATURES if name in distance]
    rows: list[Sequence[Content]] = []
    for key, name in _SHARES.items():
        if there and _measured(there[0].get(key)):
            found, floor = there[0][key]["synthetic"], there[0][key]["floor"]
            rows.append((name, _interval(found), _interval(floor), _strip(found, (0, 1), floor["value"])))
    if rows:
        yield paragraph("The same for shares: the floor is what training scans reach in the place of synthetic ones.")
        yield table("Who lies among whom", ("Figure", "Synthetic", "Floor (real)", DRAWN), rows)


def _diversity(diversity: Mapping[str, Any]) -> Iterator[Markup]:
    found, real = diversity.get("synthetic"), diversity.get("real")
    if found and real:
        yield element("h3", "How different are they from each other?")
        yield paragraph("Similarity (MS-SSIM) of random pairs: well above real means that the set repeats itself.")
        rows = [
            ("Synthetic", _interval(found), _strip(found, (0, 1), real["value"])),
            ("Real", _interval(real), _strip(real, (0, 1), real["value"])),
        ]
        yield table("Similarity of pairs", ("Set", "MS-SSIM", DRAWN), rows)
    moved = diversity.get("intensities", {})
    if _measured(moved):
        yield paragraph(
            f"Intensities would have to move by {_interval(moved['synthetic'])} to be spread as those of held-out "
            f"scans; those of training scans by {_interval(moved['floor'])}."
        )


def _labels(labels: Mapping[str, Any]) -> Iterator[Markup]:
    rows = []
    for name, sets in labels.items():
        for role, text in (("synthetic", "synthetic"), ("train", "training"), ("holdout", "held out")):
            if role in sets:
                volume = sets[role]
                size = f"{volume['mean_mm3']:.0f} (SD {volume['sd_mm3']:.0f})"
                rows.append((name, text, size, share(volume["empty"]), number(volume.get("ks"))))
    if rows:
        yield element("h3", "Are the structures as large as real ones?")
        head = ("Structure", "Set", "Volume, mm³", "Without it", "KS to held-out")
        yield table("Volumes of the structures", head, rows)
    shapes = [
        (name, key, _maybe(shape["synthetic"]["ks"]), _maybe(shape["train"]["ks"]))
        for name, sets in labels.items()
        for key, shape in sets.get("shape", {}).items()
    ]
    if shapes:
        columns = ("Structure", "Shape", "Synthetic: KS to held-out", "Training: KS to held-out")
        yield table("Shapes of the structures", columns, shapes)


def _reconstruction(kept: Mapping[str, Any]) -> Iterator[Markup]:
    rows = []
    if "psnr_db" in kept:
        rows.append(("PSNR, dB", _interval(kept["psnr_db"])))
    rows += [(f"Dice, {name}", _interval(dice)) for name, dice in kept.get("dice", {}).items()]
    if rows:
        yield element("h3", "What does the autoencoder keep?")
        yield table("Held-out scans, encoded and decoded: no sample can be better", ("Figure", "Value"), rows)


def _strip(found: Mapping[str, Any], span: tuple[float, float], mark: float) -> Markup:
    return strip(found["low"], found["value"], found["high"], span, mark=mark)


def _interval(figure: Mapping[str, Any]) -> str:
    return interval(figure["value"], figure["low"], figure["high"])


def _measured(compared: Mapping[str, Any] | None) -> bool:
    return bool(compared and compared["synthetic"] and compared["floor"])


def _maybe(figure: Mapping[str, Any] | None) -> str:
    return "-" if figure is None else _interval(figure)
