"""One audit from end to end: read, compare, calibrate, attack, plant copies, judge."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from privacy import planted, stats
from privacy.attack_stats import even_rows
from privacy.attacks import ATTACKS
from privacy.attributes import Attributes, read_attributes
from privacy.cleaning import Cleaned, RealScans, clean
from privacy.codes import Codes, Vectors, assemble, vectors
from privacy.embedding import LESSONS, cached
from privacy.errors import InputError, UsageError
from privacy.evidence import Evidence, gather_evidence
from privacy.features import Features, Space, extract, join_features, plan_space, survey
from privacy.finding import image_folder, require_folder
from privacy.gallery import Gallery, Queries, build_gallery
from privacy.margins import best, margins
from privacy.metadata import examine
from privacy.policy import Policy, load_policy
from privacy.records import Collection, Patients, Scan, Source, gather
from privacy.report import AuditReport, Findings, Power, build_report
from privacy.shrunk import Chosen, Read, Shrunk, Voxels, on_whole
from privacy.similarity import BATCH, Matches, join, match
from privacy.stored import even_spans, store
from privacy.threads import in_order
from privacy.words import counted
from privacy.writing import cache_folder, check_folders, write_report

ROLES = ("train", "holdout", "synthetic")
FIELD_RATIO = 1.5  # medians of the sets' extents may differ by this factor along an axis


def audit(
    train: Source,
    holdout: Source,
    synthetic: Source,
    *,
    train_patients: Patients = None,
    holdout_patients: Patients = None,
    attributes: str | Path | None = None,
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
    attributes : path of a CSV, or None
        Columns set (train, holdout or synthetic), file, and one an attribute: can they be guessed from the samples?
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
    rules, out = load_policy(policy), None if out is None else Path(out)
    _refuse_places({"train": train, "holdout": holdout, "synthetic": synthetic}, out)
    if out is not None:
        check_folders(out)
    show = partial(_bar, hidden=not progress)
    parts = zip(ROLES, (train, holdout, synthetic), (train_patients, holdout_patients, None), strict=True)
    with show("reading", None) as bar:
        sets = [gather(role, source, patients, bar.update) for role, source, patients in parts]
    findings = _examine(sets, attributes, rules, seed, None if out is None else cache_folder(out), show)
    report = build_report(findings)
    if out is not None:
        write_report(report, findings, out)
    return report


Progress = Callable[[str, int | None], Any]


def _bar(what: str, total: int | None, hidden: bool) -> Any:
    return tqdm(desc=what, total=total, unit=" scans", disable=hidden, file=sys.stderr)


def distinct(scans: Sequence[Scan]) -> list[Scan]:
    """Drop scans whose voxels another one has already; the order is kept."""
    return list({scan.content: scan for scan in reversed(scans)}.values())[::-1]


def _refuse_places(sources: dict[str, Source], out: Path | None) -> None:
    """Refuse sets that are no folder or the same one, and reports within a set or in the place of a file."""
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError("The reports need a folder", found=f"the file {out}")
    for role, source in sources.items():
        if isinstance(source, str | Path):
            require_folder(Path(source), role)
    folders = {role: image_folder(Path(s)).resolve() for role, s in sources.items() if isinstance(s, str | Path)}
    for (role, folder), (other, again) in itertools.combinations(folders.items(), 2):
        if folder == again:
            raise UsageError(f"{role} and {other} are the same folder", found=str(folder), expected="three sets")
    for role, folder in folders.items():
        places = (folder, Path(str(sources[role])).resolve())  # the images, and the dataset that they are part of
        if out is not None and any(out.resolve().is_relative_to(place) for place in places):
            raise UsageError(
                f"The reports would lie within the {role} set",
                found=str(out),
                next_step="Give --out a folder elsewhere",
            )


def _examine(
    sets: Sequence[Collection],
    attributes: str | Path | None,
    policy: Policy,
    seed: int,
    cache: Path | None,
    show: Progress,
) -> Findings:
    train, holdout, synthetic = (part.scans for part in sets)
    notes = tuple(f"{role}: {note}" for role, part in zip(ROLES, sets, strict=True) for note in part.notes)
    samples = distinct(synthetic)
    space = _common_space(train, holdout, samples)
    voxels = Shrunk([*train, *holdout], space)
    cleaned = clean(_real(train, holdout, voxels, space, seed, cache, show), policy)
    pooled = _pooled(cleaned)
    matches, codes = _search_samples(samples, cleaned, pooled, show)
    evidence = gather_evidence(cleaned, matches, pooled, codes, policy, np.random.default_rng([seed, 4]))
    if attributes is not None:
        evidence = replace(evidence, attributes=_attributes(Path(attributes), sets, cleaned, samples))
    results = {
        name: attack(evidence, policy, np.random.default_rng([seed, 3, k]))
        for k, (name, attack) in enumerate(ATTACKS.items())
    }
    power = _power(Chosen(voxels, range(len(train))), cleaned, evidence, policy, seed, show)
    with show("searching headers", len(synthetic)) as bar:
        metadata = examine(synthetic, [*train, *holdout], tick=bar.update)
    return Findings(
        train,
        holdout,
        synthetic,
        samples,
        notes,
        policy,
        seed,
        cleaned,
        evidence,
        matches[0],
        results,
        power,
        metadata,
    )


def _search_samples(
    samples: Sequence[Scan], cleaned: Cleaned, pooled: NDArray[np.bool_], show: Progress
) -> tuple[list[Matches], Codes]:
    """Search the samples in training, in the holdout and in both; return their matches and the codes of every scan."""
    gallery, is_train = cleaned.real.gallery, cleaned.real.is_train
    with show("searching samples", len(samples)) as bar:
        scans = Read(len(samples), lambda k: on_whole(partial(extract, space=gallery.space), samples[k]))
        found = search(scans, gallery, (is_train, ~is_train & cleaned.kept, pooled), bar.update)
    return found.sides, assemble(found.vectors, gallery, cleaned.kept, is_train)


def _pooled(cleaned: Cleaned) -> NDArray[np.bool_]:
    """Mark the scans that a search blind to sides looks at; refuse where nobody is left to compare a patient with."""
    patient, kept = cleaned.real.gallery.patient, cleaned.kept
    if not cleaned.usable.any():
        raise InputError(
            "No two training patients are left to compare",
            found=f"{counted(len(np.unique(patient)), 'patient')} in all",
            next_step="Check the patients' identifiers",
        )
    pooled = kept.copy()
    pooled[kept] = even_rows(patient[kept], cleaned.real.is_train[kept])
    return pooled


def _attributes(path: Path, sets: Sequence[Collection], cleaned: Cleaned, samples: Sequence[Scan]) -> Attributes:
    named = dict(zip(ROLES, (part.scans for part in sets), strict=True))
    real = [(role, scan) for role in ROLES[:2] for scan in named[role]]
    return read_attributes(path, named, [pair for pair, kept in zip(real, cleaned.kept, strict=True) if kept], samples)


@dataclass(frozen=True)
class Found:
    """What a search returns: the matches in each part of the gallery, and the vectors of each chunk of scans."""

    sides: list[Matches]
    vectors: list[Vectors]


def search(
    scans: Sequence[Features],
    gallery: Gallery,
    sides: Sequence[NDArray[np.bool_]],
    tick: Callable[[int], object] = lambda count: None,
) -> Found:
    """Search scans in several parts of the gallery, a bounded number at a time.

    Parameters
    ----------
    scans : sequence of Features, one scan each
        Asked for once, by several threads.
    gallery : Gallery
    sides : sequence of ndarray of bool, shape (G,)
        Each the part of the gallery to be searched.
    tick : callable
        Called with the number of scans that were searched.
    """

    def look_for(rows: slice) -> tuple[list[Matches], Vectors]:
        features = join_features([scans[k] for k in range(rows.start, rows.stop)])
        queries = Queries(features, *gallery.embedding.encode(features))
        allowed = [torch.from_numpy(side).expand(len(features), -1) for side in sides]
        return match(queries, gallery, allowed), vectors(queries, gallery)

    parts: list[list[Matches]] = [[] for _ in sides]
    vectors_of: list[Vectors] = []
    batches = even_spans(len(scans), BATCH)
    for rows, (found, vector) in zip(batches, in_order(look_for, batches), strict=True):
        for part, matches in zip(parts, found, strict=True):
            part.append(matches)
        vectors_of.append(vector)
        tick(rows.stop - rows.start)
    return Found([join(part) for part in parts], vectors_of)


def _common_space(train: Sequence[Scan], holdout: Sequence[Scan], samples: Sequence[Scan]) -> Space:
    """Plan the grids from the real scans; refuse held-out scans or samples that show a field of another size."""
    (extents, noise), (held_out, held_out_noise) = _survey(train), _survey(holdout)
    for role, others in (("held-out", held_out), ("synthetic", _survey(samples)[0])):
        ratio = np.median(others, 0) / np.median(extents, 0)
        if ratio.max() > FIELD_RATIO or ratio.min() < 1 / FIELD_RATIO:
            raise InputError(
                f"The {role} volumes show a field of another size than the training scans",
                found=f"medians {_mm(others)}",
                expected=f"about {_mm(extents)}",
                next_step="Check voxel sizes and cropping; unlike fields are not compared",
            )
    native = float(np.median([np.median(scan.spacing) for scan in (*train, *holdout)]))
    return plan_space(np.concatenate([extents, held_out]), native, [*noise, *held_out_noise])


def _survey(scans: Sequence[Scan]) -> tuple[NDArray[np.float64], list[float]]:
    found = list(in_order(partial(on_whole, survey), scans))
    return np.array([extent for extent, _ in found]), [noise for _, noise in found]


def _mm(extents: NDArray[np.float64]) -> str:
    return " x ".join(f"{edge:.0f}" for edge in np.median(extents, 0)) + " mm"


def _told(results: Iterable[Features], tick: Callable[[], object]) -> Iterator[Features]:
    for result in results:
        tick()
        yield result


def _real(
    train: Sequence[Scan],
    holdout: Sequence[Scan],
    voxels: Sequence[Voxels],
    space: Space,
    seed: int,
    cache: Path | None,
    show: Progress,
) -> RealScans:
    scans = [*train, *holdout]
    extracted = in_order(lambda k: extract(*voxels[k], space), range(len(voxels)))
    with show("preparing real scans", len(scans)) as bar, closing(extracted):
        features = store(_told(extracted, bar.update))
    # In an order that knows no sides, so that the embedding cannot tell them apart.
    order = sorted(range(len(scans)), key=lambda k: (scans[k].content, scans[k].sha256))
    with show("learning the embedding", LESSONS) as bar:
        contents, seen = [scans[k].content for k in order], Chosen(voxels, order)
        embedding = cached(cache, contents, features.chosen(order), seen, space, seed, bar.update)
    numbers: dict[str, int] = {}
    patient = np.array([numbers.setdefault(scan.patient, len(numbers)) for scan in scans])
    is_train = np.arange(len(patient)) < len(train)
    return RealScans(build_gallery(features, patient, space, embedding), is_train)


def _power(
    train: Sequence[Voxels], cleaned: Cleaned, evidence: Evidence, policy: Policy, seed: int, show: Progress
) -> Power:
    """Plant copies of training scans and count those that the very same search and thresholds find."""
    plan, gallery = planted.plan(len(train), seed), cleaned.real.gallery

    def plant(number: int) -> Features:
        name, k, rng = plan[number]
        array, spacing = train[k]
        return extract(planted.DISGUISES[name](array, rng), spacing, gallery.space)

    with show("finding planted copies", len(plan)) as bar:
        matches = search(Read(len(plan), plant), gallery, (cleaned.real.is_train,), bar.update).sides[0]
    found = best(margins(matches, gallery.patient, cleaned.weights), matches, evidence.calibration.tau_id)
    hit = (found.score >= 1) & (found.patient == gallery.patient[[k for _, k, _ in plan]])
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
