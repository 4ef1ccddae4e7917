"""One audit from end to end: read, compare, calibrate, attack, plant copies, judge."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from privacy import planted, stats
from privacy.attacks import ATTACKS
from privacy.cleaning import Cleaned, RealScans, clean
from privacy.errors import InputError, UsageError
from privacy.evidence import Evidence, calibrate
from privacy.features import Array, Space, crop_to_content, extract, join_features, plan_space
from privacy.policy import Policy, load_policy
from privacy.records import Patients, Scan, Source, collect, image_folder
from privacy.report import AuditReport, Findings, Power, build_report
from privacy.similarity import Best, Gallery, Matches, best, build_gallery, coarse_search, join, refine
from privacy.writing import write_report

CHUNK = 64
FIELD_RATIO = 1.5  # medians of the sets' extents may differ by this factor along an axis


def audit(
    train: Source,
    holdout: Source,
    synthetic: Source,
    *,
    train_patients: Patients = None,
    holdout_patients: Patients = None,
    policy: str | Path = "default",
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
) -> AuditReport:
    """Judge whether a synthetic set gives training patients away.

    Parameters
    ----------
    train, holdout, synthetic : path, or sequence of arrays (I, J, K) or of paths
        Folders are searched recursively for NIfTI. The holdout must come from the same source as training and must
        have been split off, by patient, before anything was fitted.
    train_patients, holdout_patients : path of a CSV, sequence of ids, or None
        None looks for a ``subjects.csv`` in or beside the folder; without one, each volume is its own patient.
    policy : str or Path
        A bundled policy's name or a YAML file.
    seed : int
        Of the planted copies, permutations and bootstraps.
    out : path or None
        Where to write ``steward/`` (stays home) and ``release/``.
    progress : bool
        Whether to show progress on stderr.

    Returns
    -------
    AuditReport

    Raises
    ------
    UsageError
        If options contradict each other, or the policy or a table of patients cannot be followed.
    InputError
        If a volume cannot be read or the sets cannot be compared.
    """
    rules = load_policy(policy)
    if out is not None:
        _refuse_file(Path(out))
    _refuse_same_folder({"train": train, "holdout": holdout, "synthetic": synthetic})
    parts = (("train", train, train_patients), ("holdout", holdout, holdout_patients), ("synthetic", synthetic, None))
    with tqdm(desc="reading", unit=" scans", disable=not progress, file=sys.stderr) as bar:
        sets = [collect(role, source, patients, bar.update) for role, source, patients in parts]
    findings = _examine(sets, rules, seed, progress)
    report = build_report(findings)
    if out is not None:
        write_report(report, findings, Path(out))
    return report


def distinct(scans: Sequence[Scan]) -> list[Scan]:
    """Drop scans whose voxels another one has already; the order is kept."""
    return list({scan.content: scan for scan in reversed(scans)}.values())[::-1]


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError("The reports need a folder", found=f"the file {out}")


def _refuse_same_folder(sources: dict[str, Source]) -> None:
    folders = [(role, image_folder(Path(s)).resolve()) for role, s in sources.items() if isinstance(s, str | Path)]
    for k, (role, folder) in enumerate(folders):
        for other, again in folders[:k]:
            if folder == again:
                raise UsageError(f"{other} and {role} are the same folder", found=str(folder), expected="three sets")


def _examine(sets: Sequence[list[Scan]], policy: Policy, seed: int, progress: bool) -> Findings:
    train, holdout, synthetic = sets
    samples = distinct(synthetic)
    space = _common_space(train + holdout, samples)
    cleaned = clean(_real(train, holdout, space, progress), policy)
    gallery, is_train = cleaned.real.gallery, cleaned.real.is_train
    sides = (is_train, ~is_train & cleaned.kept, cleaned.kept)
    stream = tqdm(samples, "searching samples", disable=not progress, file=sys.stderr)
    matches = search(((scan.array(), scan.spacing) for scan in stream), gallery, sides)
    found = [best(match, gallery.patient) for match in matches]
    evidence = _evidence(cleaned, found, policy, seed)
    results = {
        name: attack(evidence, policy, np.random.default_rng([seed, 3, k]))
        for k, (name, attack) in enumerate(ATTACKS.items())
    }
    power = _power(train, gallery, is_train, evidence.calibration.tau_id, policy, seed, progress)
    return Findings(train, holdout, synthetic, samples, policy, seed, cleaned, evidence, matches[0], results, power)


def search(
    volumes: Iterable[tuple[Array, tuple[float, ...]]], gallery: Gallery, sides: Sequence[NDArray[np.bool_]]
) -> list[Matches]:
    """Search volumes in several parts of the gallery, a bounded number at a time.

    Parameters
    ----------
    volumes : iterable of (array, spacing)
    gallery : Gallery
    sides : sequence of ndarray of bool, shape (G,)
        Each the part of the gallery to be searched.

    Returns
    -------
    list of Matches
        One for each side.
    """
    parts: list[list[Matches]] = [[] for _ in sides]
    for chunk in _chunks(volumes, CHUNK):
        queries = join_features([extract(array, spacing, gallery.space) for array, spacing in chunk])
        coarse = coarse_search(queries, gallery)
        allowed = [torch.from_numpy(side).expand(len(queries), -1) for side in sides]
        for part, matches in zip(parts, refine(queries, gallery, coarse, allowed), strict=True):
            part.append(matches)
    return [join(part) for part in parts]


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _common_space(real: Sequence[Scan], samples: Sequence[Scan]) -> Space:
    """Plan the grids from the real scans; refuse samples that show a field of another size."""
    extents, others = _extents(real), _extents(samples)
    ratio = np.median(others, 0) / np.median(extents, 0)
    if ratio.max() > FIELD_RATIO or ratio.min() < 1 / FIELD_RATIO:
        raise InputError(
            "The synthetic volumes show a field of another size than the training scans",
            found=f"medians {_mm(others)}",
            expected=f"about {_mm(extents)}",
            next_step="Check voxel sizes and cropping; unlike fields are not compared",
        )
    native = float(np.median([np.median(scan.spacing) for scan in real]))
    return plan_space(extents, native)


def _extents(scans: Sequence[Scan]) -> NDArray[np.float64]:
    return np.array([np.array(crop_to_content(s.array())[0].shape) * s.spacing for s in scans], dtype=np.float64)


def _mm(extents: NDArray[np.float64]) -> str:
    return " x ".join(f"{edge:.0f}" for edge in np.median(extents, 0)) + " mm"


def _real(train: Sequence[Scan], holdout: Sequence[Scan], space: Space, progress: bool) -> RealScans:
    scans = tqdm([*train, *holdout], "comparing real scans", disable=not progress, file=sys.stderr)
    features = join_features([extract(scan.array(), scan.spacing, space) for scan in scans])
    numbers: dict[str, int] = {}
    patient = np.array([numbers.setdefault(scan.patient, len(numbers)) for scan in (*train, *holdout)])
    is_train = np.arange(len(patient)) < len(train)
    return RealScans(build_gallery(features, patient, space), features, is_train)


def _evidence(cleaned: Cleaned, found: Sequence[Best], policy: Policy, seed: int) -> Evidence:
    patient, is_train = cleaned.real.gallery.patient, cleaned.real.is_train
    calibration = calibrate(
        (cleaned.null.margin, cleaned.null_patient),
        (cleaned.inner.margin, cleaned.inner_patient),
        cleaned.tau_same,
        len(found[0].margin),
        policy,
        np.random.default_rng([seed, 4]),
    )
    train, holdout = np.unique(patient[is_train]), np.unique(patient[~is_train & cleaned.kept])
    return Evidence(found[0], found[1], found[2], cleaned.null, cleaned.null_patient, train, holdout, calibration)


def _power(
    train: Sequence[Scan],
    gallery: Gallery,
    is_train: NDArray[np.bool_],
    tau_id: float,
    policy: Policy,
    seed: int,
    progress: bool,
) -> Power:
    """Plant copies of training scans and count those that the very same search and threshold find."""
    plan = planted.plan(len(train), seed)
    stream = tqdm(plan, "finding planted copies", disable=not progress, file=sys.stderr)
    copies = ((planted.DISGUISES[name](train[k].array(), rng), train[k].spacing) for name, k, rng in stream)
    found = best(search(copies, gallery, (is_train,))[0], gallery.patient)
    right = found.patient == gallery.patient[[k for _, k, _ in plan]]
    hit = (found.margin >= tau_id) & right
    names = np.array([name for name, _, _ in plan])
    confidence = policy.thresholds["confidence"]
    lower, _ = stats.clopper_pearson(int(hit.sum()), len(hit), confidence)
    return Power(
        planted=len(hit),
        found=int(hit.sum()),
        recall_lower=lower,
        by_disguise={name: float(hit[names == name].mean()) for name in planted.DISGUISES},
        smallest_copies=stats.smallest_count(lower, confidence),
    )
