"""What a cohort looks like: sizes, spacings, intensities, labels, covariates and duplicates. It stays at home."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from synthmed.cohort.case import Cohort
from synthmed.volume import Volume, reorient
from synthmed.words import counted

PERCENTILES = (0.0, 0.5, 50.0, 99.5, 99.9, 100.0)


@dataclass(frozen=True)
class Facts:
    """What one case says about itself.

    Attributes
    ----------
    shape, spacing, extent : tuple
        Voxels, mm a voxel and mm in all along the axes closest to R, A and S, whatever their order in the file.
    orientation : str
        The file's own axis codes.
    percentiles : tuple of float
        Intensities at `PERCENTILES` %, units of the file.
    label_voxels : mapping of label value to number of voxels, background left out; None without a label
    label_extent : tuple of float, mm along R, A and S
        Twice the farthest that a labelled voxel reaches from the volume's centre: a grid this large holds the label.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    extent: tuple[float, float, float]
    percentiles: tuple[float, ...]
    label_voxels: Mapping[int, int] | None = None
    label_extent: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel, mm^3."""
        return float(np.prod(self.spacing))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        content = asdict(self)
        if self.label_voxels is not None:
            content["label_voxels"] = {str(value): count for value, count in self.label_voxels.items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Facts:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        if values["label_voxels"] is not None:
            values["label_voxels"] = {int(value): count for value, count in values["label_voxels"].items()}
        return cls(**values)


def measure(image: Volume, label: Volume | None) -> Facts:
    """Measure one case.

    Parameters
    ----------
    image : Volume, shape (1, I, J, K)
    label : Volume or None, on the same grid
    """
    canonical = reorient(Volume(image.array[:1], image.affine), "RAS").geometry
    extent = tuple(n * s for n, s in zip(canonical.shape, canonical.spacing, strict=True))
    counts: dict[int, int] | None = None
    reach: tuple[float, ...] = (0.0, 0.0, 0.0)
    if label is not None:
        values, numbers = np.unique(label.array, return_counts=True)
        counts = {int(v): int(n) for v, n in zip(values, numbers, strict=True) if v != 0}
        reach = _label_extent(reorient(label, "RAS"))
    return Facts(
        shape=canonical.shape,
        spacing=_rounded(canonical.spacing),
        orientation=image.orientation,
        extent=_rounded(extent),
        percentiles=tuple(float(f"{v:.6g}") for v in np.percentile(image.array, PERCENTILES)),
        label_voxels=counts,
        label_extent=_rounded(reach),
    )


def fingerprint(
    cohort: Cohort,
    facts: Sequence[Facts],
    *,
    sides: Mapping[str, Cohort] | None = None,
    near: Sequence[tuple[str, str, float]] = (),
    dropped: Sequence[tuple[str, str]] = (),
    warnings: Iterable[str] = (),
) -> dict[str, Any]:
    """Summarise a cohort as plain JSON types.

    Parameters
    ----------
    cohort : Cohort
    facts : sequence of Facts, one a case, in the cohort's order
    sides : mapping of "train" and "holdout" to Cohort, optional
    near : sequence of (case, case, correlation)
        Near-duplicates, kept on one side of the split.
    dropped : sequence of (case, case)
        Cases left out, each beside the case that it repeats.
    warnings : iterable of str
    """
    return {
        "cases": len(cohort.cases),
        "patients": len(cohort.subject_ids),
        "split": {side: {"cases": len(c.cases), "patients": len(c.subject_ids)} for side, c in (sides or {}).items()},
        "modality": cohort.modality,
        "shape": _triples([f.shape for f in facts]),
        "spacing_mm": _triples([f.spacing for f in facts]),
        "extent_mm": _triples([f.extent for f in facts]),
        "orientations": dict(Counter(f.orientation for f in facts).most_common()),
        "intensities": {f"{p:g}": _spread([f.percentiles[n] for f in facts]) for n, p in enumerate(PERCENTILES)},
        "labels": _labels(facts, cohort.label_names),
        "label_extent_mm": _triples([f.label_extent for f in facts]) if facts[0].label_voxels is not None else None,
        "covariates": _covariates(cohort),
        "duplicates": {"near": [list(pair) for pair in near], "dropped": [list(pair) for pair in dropped]},
        "warnings": [*cohort.notes, *warnings],
    }


def format_fingerprint(content: Mapping[str, Any]) -> str:
    """Return a fingerprint as a table for the terminal."""
    split = "; ".join(f"{side} {n['cases']} of {n['patients']}" for side, n in content["split"].items())
    lines = [f"{counted(content['cases'], content['modality'] + ' case')} of {counted(content['patients'], 'patient')}"]
    rows: list[tuple[str, str]] = [("split", split)] if split else []
    rows += [
        (title, _format_triples(content[key]))
        for title, key in (("voxels R A S", "shape"), ("spacing, mm", "spacing_mm"), ("extent, mm", "extent_mm"))
    ]
    rows.append(("orientation", ", ".join(f"{code} {count}" for code, count in content["orientations"].items())))
    rows += [(f"intensity at {p} %", _format_spread(v)) for p, v in content["intensities"].items()]
    for value, label in content["labels"].items():
        name = f" {label['name']}" if label["name"] else ""
        rows.append(
            (f"label {value}{name}", f"in {counted(label['cases'], 'case')}, ml {_format_spread(label['volume_ml'])}")
        )
    rows += [(f"covariate {name}", _format_covariate(value)) for name, value in content["covariates"].items()]
    repeats = content["duplicates"]
    rows.append(
        ("duplicates", f"{len(repeats['dropped'])} left out, {counted(len(repeats['near']), 'near-duplicate pair')}")
    )
    rows += [("", f"{a} repeats {b}") for a, b in repeats["dropped"]]
    rows += [("", f"{a} and {b} correlate at {r:.4f}") for a, b, r in repeats["near"]]
    rows += [("note", text) for text in content["warnings"]]
    width = max(len(title) for title, _ in rows)
    return "\n".join(lines + [f"  {title:<{width}}  {text}" for title, text in rows])


def _label_extent(label: Volume) -> tuple[float, ...]:
    reach = []
    for axis, (n, s) in enumerate(zip(label.shape, label.spacing, strict=True)):
        others = tuple(a for a in range(4) if a != axis + 1)
        places = np.flatnonzero(label.array.any(axis=others))
        farthest = 0.0 if places.size == 0 else float(np.abs(places - (n - 1) / 2).max()) + 0.5
        reach.append(2 * farthest * s)
    return tuple(reach)


def _rounded(values: Iterable[float]) -> tuple[float, float, float]:
    a, b, c = (round(float(value), 4) for value in values)
    return a, b, c


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, (0, 50, 100))
    return {"min": float(low), "median": float(middle), "max": float(high)}


def _triples(rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    table = np.percentile(np.asarray(rows, dtype=np.float64), (0, 50, 95, 100), axis=0)
    names = ("min", "median", "p95", "max")
    return {name: [round(float(v), 4) for v in row] for name, row in zip(names, table, strict=True)}


def _labels(facts: Sequence[Facts], names: Mapping[int, str]) -> dict[str, Any]:
    values = sorted({value for f in facts for value in f.label_voxels or {}} | {v for v in names if v != 0})
    if facts[0].label_voxels is None:
        return {}
    found = {}
    for value in values:
        volumes = [f.label_voxels[value] * f.voxel_volume / 1000 for f in facts if value in (f.label_voxels or {})]  # type: ignore[index]
        spread = {key: round(v, 4) for key, v in _spread(volumes or [0.0]).items()}
        found[str(value)] = {"name": names.get(value, ""), "cases": len(volumes), "volume_ml": spread}
    return found


def _covariates(cohort: Cohort) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for case in cohort.cases for name in case.covariates):
        values = [case.covariates[name] for case in cohort.cases if name in case.covariates]
        missing = len(cohort.cases) - len(values)
        if all(isinstance(value, float) for value in values):
            found[name] = {**_spread([float(v) for v in values]), "distinct": len(set(values)), "missing": missing}
        else:
            found[name] = {"values": dict(Counter(str(v) for v in values).most_common()), "missing": missing}
    return found


def _format_triples(content: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {' x '.join(f'{v:g}' for v in row)}" for name, row in content.items())


def _format_spread(content: Mapping[str, float]) -> str:
    return f"{content['median']:.4g} ({content['min']:.4g} to {content['max']:.4g})"


def _format_covariate(content: Mapping[str, Any]) -> str:
    missing = f", missing {content['missing']}" if content["missing"] else ""
    if "values" not in content:
        return _format_spread(content) + missing
    shown = list(content["values"].items())
    text = ", ".join(f"{value} {count}" for value, count in shown[:6])
    return f"{text}{f' and {len(shown) - 6} more' if len(shown) > 6 else ''}{missing}"
