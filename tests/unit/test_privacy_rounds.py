"""Rounds of merging: what an earlier one found is taken over to the last bit, and only that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from privacy_scans import gallery, scans

from privacy import pairs, similarity
from privacy.gallery import Gallery
from privacy.rounds import Rounds
from privacy.similarity import Matches, match

BATCH, PEOPLE, TRAIN = 4, 12, 8
OWNERS = [list(range(PEOPLE)), [0, 1, 2, 3, 4, 4, 6, 7, 8, 9, 10, 11], [0, 1, 2, 3, 4, 4, 6, 7, 8, 9, 10, 2]]


@pytest.fixture(scope="module")
def real() -> Gallery:
    return gallery(scans(range(PEOPLE)))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rounds", "similarity"):
        monkeypatch.setattr(f"privacy.{module}.BATCH", BATCH)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the searches and comparisons that are made."""
    count = {"coarse_search": 0, "compare": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            count[name] += 1
            return function(*arguments)

        return call

    for name in count:
        monkeypatch.setattr(similarity, name, counted(name, getattr(similarity, name)))
    return count


def _same(one: list[Matches], two: list[Matches]) -> bool:
    fields = ("index", "views", "mirror", "pose")
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for a, b in zip(one, two, strict=True) for f in fields)


def _afresh(real: Gallery, is_train: np.ndarray) -> list[Matches]:
    others = torch.from_numpy(real.patient[:, None] != real.patient)
    return match(real.queries, real, [others & torch.from_numpy(is_train), others])


def test_every_round_finds_what_a_search_afresh_finds(real: Gallery) -> None:
    is_train, rounds = np.arange(PEOPLE) < TRAIN, Rounds()
    for owners in OWNERS:
        merged = replace(real, patient=np.array(owners))
        assert _same(rounds.match(merged, is_train), _afresh(merged, is_train))


def test_poses_are_searched_once_and_only_changed_batches_compared_again(real: Gallery, calls: dict[str, int]) -> None:
    is_train, rounds = np.arange(PEOPLE) < TRAIN, Rounds()
    made = []
    for owners in (OWNERS[0], OWNERS[0], OWNERS[1]):
        rounds.match(replace(real, patient=np.array(owners)), is_train)
        made.append((calls["coarse_search"], calls["compare"]))
    assert made == [(3, 3), (3, 3), (3, 4)]


def test_pairs_are_compared_as_they_would_be_in_one_go(real: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    is_train = np.ones(PEOPLE, bool)
    (whole, _) = Rounds().match(real, is_train)
    monkeypatch.setattr(pairs, "REGISTERED", 9)
    (parts, _) = Rounds().match(real, is_train)
    assert np.array_equal(parts.index, whole.index)
    assert np.array_equal(parts.mirror, whole.mirror)
    assert np.allclose(parts.views, whole.views, atol=1e-4)
