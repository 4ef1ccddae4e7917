"""Audits that are quick enough for a test, and honest sets by the hundred from one search."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom

from privacy import stats, suite
from privacy.attacks import ATTACKS
from privacy.cleaning import LEAST_SCALE, Cleaned, RealScans, clean, same_person_threshold
from privacy.codes import Codes, vectors
from privacy.embedding import learn
from privacy.evidence import calibrate, null_rows
from privacy.features import extract, join_features, plan_space, survey
from privacy.gallery import Gallery, build_gallery
from privacy.margins import best, margins, weigh
from privacy.policy import MEMBERSHIP, Policy
from privacy.records import Scan
from privacy.similarity import VIEWS, Matches, match

LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75)


@contextmanager
def quick(lessons: int = 48, planted: int = 2) -> Iterator[None]:
    """Let audits learn from fewer views and plant fewer copies, for tests of all that does not rest on their number."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("embedding", "suite"):
            patch.setattr(f"privacy.{module}.LESSONS", lessons)
        patch.setattr("privacy.planted.PER_DISGUISE", planted)
        patch.setattr("privacy.evidence.DRAWS", 8)
        yield


@contextmanager
def clean_once() -> Iterator[None]:
    """Let audits of the same real scans compare these with each other once: nothing of that rests on the samples."""
    known: dict[str, Cleaned] = {}

    def cleaned(real: RealScans, policy: Policy) -> Cleaned:
        gallery, whole = real.gallery, real.gallery.features[slice(None)]
        tensors = (gallery.codes, whole.intensity, whole.fine, whole.coarse, whole.centre)
        arrays = (gallery.patient, real.is_train, *(tensor.numpy() for tensor in tensors))
        digest = hashlib.sha256(repr((gallery.space, policy)).encode())
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        key = digest.hexdigest()
        if key not in known:
            known[key] = clean(real, policy)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "clean", cleaned)
        yield


def arguments(root: Path, out: str, synthetic: str = "synthetic", **options: object) -> list[str]:
    """Return the command line of an audit of the folders below `root`."""
    folders = [f"--{role}={root / role}" for role in ("train", "holdout")]
    extra = [f"--{key}={value}" for key, value in ({"policy": "research"} | options).items()]
    return ["audit", *folders, f"--synthetic={root / synthetic}", f"--out={root / out}", "--quiet", *extra]


@dataclass(frozen=True)
class Pool:
    """Real scans as the audit sees them, compared once: patients are then given sides again and again.

    Attributes
    ----------
    gallery : Gallery
        All scans.
    sample : ndarray of bool, shape (G,)
        Scans of the people whose scans stand for what an honest generator makes.
    train : ndarray of bool, shape (G,)
        Fixed training scans, for comparisons in which the side matters.
    pooled : Matches
        Of the sample scans with all others.
    trained : Matches
        Of every scan with the training scans of all other patients.
    codes : Codes
        Samples and all others.
    """

    gallery: Gallery
    sample: np.ndarray
    train: np.ndarray
    pooled: Matches
    trained: Matches
    codes: Codes

    def labels(self, seed: int, members: int) -> tuple[np.ndarray, np.ndarray]:
        """Make so many of the people who are no samples members; return who they all are, and who is one."""
        owners = np.unique(self.gallery.patient[~self.sample])
        return owners, np.isin(owners, np.random.default_rng([seed, 8]).permutation(owners)[:members])


def pool(scans: Sequence[Scan], samples: int, train: int, seed: int = 0) -> Pool:
    """Compare scans once; `samples` of their patients, drawn at random, are no one's training scans, `train` are.

    The patients of the rest may be held out, or pose as samples too.
    """
    found = [survey(scan.array(), scan.spacing) for scan in scans]
    native = float(np.median([np.median(scan.spacing) for scan in scans]))
    space = plan_space(np.array([extent for extent, _ in found]), native, [noise for _, noise in found])
    features = join_features([extract(s.array(), s.spacing, space) for s in scans])
    numbers: dict[str, int] = {}
    patient = np.array([numbers.setdefault(s.patient, len(numbers)) for s in scans])
    embedding = learn(features, [(s.array(), s.spacing) for s in scans], space, seed)
    gallery = build_gallery(features, patient, space, embedding)
    order = np.random.default_rng([seed, 9]).permutation(np.unique(patient))
    sample = np.isin(patient, order[:samples])
    is_train = np.isin(patient, order[samples : samples + train])
    pooled, trained = _compared(gallery, sample, is_train)
    codes, views = vectors(gallery.queries, gallery)
    return Pool(
        gallery,
        sample,
        is_train,
        pooled,
        trained,
        Codes(codes[sample], codes[~sample], views[sample], views[~sample], patient[~sample], is_train[~sample]),
    )


def _compared(gallery: Gallery, sample: np.ndarray, is_train: np.ndarray) -> tuple[Matches, Matches]:
    import torch

    other = gallery.patient[:, None] != gallery.patient[None]
    sides = [torch.from_numpy(other & ~sample[None]), torch.from_numpy(other & is_train[None])]
    pooled, trained = match(gallery.queries, gallery, sides)
    return rows_of(pooled, np.flatnonzero(sample)), trained


def rows_of(matches: Matches, rows: np.ndarray) -> Matches:
    """Return the matches of some queries."""
    return Matches(matches.index[rows], matches.views[rows], matches.mirror[rows], matches.pose[rows])


def honest_set(known: Pool, seed: int, held_out: int, samples: int, policy: Policy) -> tuple[float, bool]:
    """Hold out some people who are not in training and let others pose as samples; score both as an audit does.

    Returns
    -------
    p : float
        Conformal p-value of one of the samples, made continuous: the part that chance could take off it is taken.
    matched : bool
        Whether any sample reaches tau_id.
    """
    patient = known.gallery.patient
    rest = np.random.default_rng([seed, 10]).permutation(np.unique(patient[~known.train]))
    holdout = np.flatnonzero(np.isin(patient, rest[:held_out]))
    posing = np.flatnonzero(np.isin(patient, rest[held_out : held_out + samples]))
    cleaned = _cleaned(known, np.concatenate([np.flatnonzero(known.train), holdout]), policy)
    calibration = calibrate(cleaned, len(posing), policy, np.random.default_rng(seed))
    null = null_rows(cleaned)
    found = best(cleaned.found, cleaned.matches, calibration.tau_id)[null]
    matches = rows_of(known.trained, posing)
    scored = best(margins(matches, patient, cleaned.weights), matches, calibration.tau_id)
    rng = np.random.default_rng([seed, 11])
    one = scored.score[[int(rng.integers(len(posing)))]]
    p = stats.conformal_p(one, found.score, cleaned.real.gallery.patient[null])
    return float(p[0] - rng.uniform() / (held_out + 1)), bool((scored.score >= 1).any())


def _cleaned(known: Pool, rows: np.ndarray, policy: Policy) -> Cleaned:
    patient = known.gallery.patient
    matches = rows_of(known.trained, rows)
    scale = np.median(margins(matches, patient, np.eye(len(VIEWS))).margin, 0)
    weights = weigh(np.maximum(scale, LEAST_SCALE))
    found = margins(matches, patient, weights)
    real = RealScans(replace(known.gallery, patient=patient[rows]), known.train[rows])
    tau_same = same_person_threshold(found, patient[rows], policy)
    return Cleaned(real, np.ones(len(rows), bool), weights, matches, found, tau_same)


def outside(p: Sequence[float], levels: Sequence[float] = LEVELS, certainty: float = 0.9999) -> list[str]:
    """Say at which levels the p-values of honest sets do not lie as uniform ones do, by exact binomial intervals."""
    found = []
    for level in levels:
        count = int((np.asarray(p) <= level + 1e-12).sum())
        low, high = binom.interval(certainty, len(p), level)
        if not low <= count <= high:
            found.append(f"{count} of {len(p)} at {level}, expected {low:.0f} to {high:.0f}")
    return found


def relabelled(known: Pool, seed: int, members: int, policy: Policy) -> dict[str, float]:
    """Return the p-values of the attacks that permute labels, with the labels of the people of a pool drawn afresh."""
    owners, member = known.labels(seed, members)
    patient = known.codes.patient
    is_train = np.isin(patient, owners[member])
    blind = weigh(np.ones(len(VIEWS)))
    nearest = best(margins(known.pooled, known.gallery.patient, blind), known.pooled, np.ones(blind.shape[1]))
    train, holdout = owners[member], owners[~member]
    evidence = SimpleNamespace(
        samples_pooled=nearest,
        train=train,
        holdout=holdout,
        scans=np.array([(patient == owner).sum() for owner in (*train, *holdout)]),
        codes=replace(known.codes, is_train=is_train),
    )
    rngs = (np.random.default_rng([seed, 12, k]) for k in range(len(MEMBERSHIP)))
    names = (name.removesuffix("_p") for name in MEMBERSHIP)
    return {
        f"{name}_p": float(ATTACKS[name](evidence, policy, rng).measurements[f"{name}_p"])  # type: ignore[arg-type]
        for name, rng in zip(names, rngs, strict=True)
    }
