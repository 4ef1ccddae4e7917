"""This project's audit as a judge: the margin over other patients, in units of the threshold tau_id."""

from __future__ import annotations

import hashlib
from itertools import chain

import numpy as np

from copies.judging import Problem, Scores, by_threshold
from privacy.cleaning import RealScans, clean
from privacy.embedding import learn
from privacy.evidence import calibrate
from privacy.features import extract, join_features, plan_space, survey
from privacy.gallery import build_gallery
from privacy.margins import best, margins
from privacy.policy import load_policy
from privacy.suite import search

POLICY = "default"


def audit(problem: Problem) -> Scores:
    """Search all queries in the training scans; a score of 1 is tau_id for a set of the problem's size."""
    policy = load_policy(POLICY)
    cleaned = clean(_real(problem), policy)
    gallery, is_train = cleaned.real.gallery, cleaned.real.is_train
    calibration = calibrate(cleaned, problem.set_size, policy, np.random.default_rng([problem.seed, 4]))
    queries = [extract(volume.array, volume.spacing, gallery.space) for volume in problem.queries]
    matches = search(queries, gallery, (is_train,)).sides[0]
    found = best(margins(matches, gallery.patient, cleaned.weights), matches, calibration.tau_id)
    owner = np.array([*problem.train_patient, *problem.holdout_patient])
    named = np.where(found.scan >= 0, owner[found.scan], "")
    return by_threshold(found.score, named, 1.0)


def _real(problem: Problem) -> RealScans:
    volumes = list(chain(problem.train, problem.holdout))
    found = [survey(volume.array, volume.spacing) for volume in volumes]
    native = float(np.median([np.median(volume.spacing) for volume in volumes]))
    space = plan_space(np.array([extent for extent, _ in found]), native, [noise for _, noise in found])
    features = join_features([extract(v.array, v.spacing, space) for v in volumes])
    # In an order that knows no sides.
    order = sorted(range(len(volumes)), key=lambda k: hashlib.sha256(volumes[k].array.tobytes()).hexdigest())
    embedding = learn(features[order], [tuple(volumes[k]) for k in order], space, problem.seed)
    numbers: dict[str, int] = {}
    owners = (*problem.train_patient, *problem.holdout_patient)
    patient = np.array([numbers.setdefault(owner, len(numbers)) for owner in owners])
    is_train = np.arange(len(patient)) < len(problem.train)
    return RealScans(build_gallery(features, patient, space, embedding), is_train)
