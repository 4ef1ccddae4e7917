"""Fidelity and utility: each figure with its interval and what real scans give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synthmed.report.charts import strip
from synthmed.report.facts import Facts
from synthmed.report.markup import Content, Markup, element, interval, number, paragraph, section, share, table

_FEATURES = {"random_convolutions": "random convolutions", "radiomics": "radiomics"}
_DISTANCES = {"kid": "Kernel distance (KID)", "frechet": "Fréchet distance"}
_SETS = {"tstr": "synthetic alone", "trtr": "real alone"}


def quality_section(facts: Facts) -> Markup:
    """Return how like real scans the volumes are, and what they are good for."""
    result = facts.evaluation
    if result is None:
        return section("quality", "Use and likeness", [paragraph("Neither was measured for this set.")])
    n = result.get("n", {})
    parts = [
        paragraph(
            f"{n.get('synthetic', '-')} synthetic volumes; {n.get('holdout', '-')} scans of "
            f"{n.get('holdout_patients', '-')} held-out patients judge them. Intervals, at 95 %, resample patients."
        ),
        *_utility(result.get("utility", {})),
        *_distances(result.get("distance", {})),
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
            size = f", {found['n_training']} scans" if "n_training" in found else ""
            drawn = strip(dice["low"], dice["value"], dice["high"], (0, 1), mark=real["value"])
            rows.append((key.capitalize(), f"{_SETS.get(name, name)}{size}", _interval(dice), drawn))
    yield paragraph(
        "A segmenter is trained on each set and tested on held-out patients. The upright line is what training on real "
        "scans reaches, the ceiling for a synthetic set."
    )
    yield table("Dice on held-out patients, by structure", ("Structure", "Trained on", "Dice", "Drawn"), rows)
    if utility.get("ratio"):
        ratio = utility["ratio"]
        yield paragraph(f"Synthetic training reaches {_interval(ratio)} of what real training reaches.")


def _dice(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    chosen: Mapping[str, Any] = found["dice"] if key == "mean" else found["structures"][key]
    return chosen


def _distances(distance: Mapping[str, Any]) -> Iterator[Markup]:
    rows: list[Sequence[Content]] = []
    for features, text in _FEATURES.items():
        for key, name in _DISTANCES.items():
            if key not in distance.get(features, {}):
                continue
            found, floor = distance[features][key]["synthetic"], distance[features][key]["floor"]
            span = min(0.0, found["low"], floor["low"]), max(found["high"], floor["high"])
            rows.append((f"{name}, {text}", _interval(found), _interval(floor), _strip(found, span, floor["value"])))
    if rows:
        yield element("h3", "How like real scans are they?")
        yield paragraph(
            "Distance between the synthetic and the held-out set; smaller is better. The floor is the distance of "
            "training scans from held-out ones: no generator needs to be closer."
        )
        yield table("Distances with their floor", ("Distance", "Synthetic", "Floor (real)", "Drawn"), rows)


def _diversity(diversity: Mapping[str, Any]) -> Iterator[Markup]:
    found, real = diversity.get("synthetic"), diversity.get("real")
    if found and real:
        yield element("h3", "How different are they from each other?")
        yield paragraph("Similarity (MS-SSIM) of random pairs: well above real means that the set repeats itself.")
        rows = [
            ("Synthetic", _interval(found), _strip(found, (0, 1), real["value"])),
            ("Real", _interval(real), _strip(real, (0, 1), real["value"])),
        ]
        yield table("Similarity of pairs", ("Set", "MS-SSIM", "Drawn"), rows)


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
