"""The attacks: each turns the evidence into measurements, and where it can, into a word on each sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from privacy.attacks.copying import copying
from privacy.attacks.density import density
from privacy.attacks.distance import distance
from privacy.attacks.identity import identity
from privacy.attacks.inference import attributes, inference
from privacy.attacks.linkability import linkability
from privacy.attacks.membership import membership
from privacy.attacks.result import AttackResult
from privacy.evidence import Evidence
from privacy.policy import Policy

Attack = Callable[[Evidence, Policy, np.random.Generator], AttackResult]

ATTACKS: dict[str, Attack] = {
    "copying": copying,
    "identity": identity,
    "membership": membership,
    "distance": distance,
    "density": density,
    "linkability": linkability,
    "inference": inference,
    "attributes": attributes,
}

__all__ = ["ATTACKS", "Attack", "AttackResult"]
