"""`synthmed.prepare.duplicates`: the pairs do not depend on how many thumbnails are compared at a time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from synthmed.cohort.case import Case, Cohort
from synthmed.cohort.phantom import Phantom
from synthmed.io import write_volume
from synthmed.prepare import duplicates
from synthmed.prepare.staging import Staging
from synthmed.volume import Volume


@pytest.mark.parametrize("block", [1, 3, 512])
def test_every_pair_is_looked_at_once_whatever_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    phantoms = [Phantom(0, number, (20, 24, 18)) for number in range(6)]
    images = [phantom.render()[0] for phantom in phantoms]
    rng = np.random.default_rng(0)
    images += [Volume(image.array + rng.normal(0, 2, image.array.shape), image.affine) for image in images[::2]]
    names = [f"case{number}" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        write_volume(tmp_path / ".staging" / "images" / f"{name}.nii.gz", image)
    staging = Staging(tmp_path)
    cases = [Case(name, name, phantom) for name, phantom in zip(names, itertools.cycle(phantoms), strict=False)]
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    found = duplicates.near_duplicates(Cohort(tuple(cases)), staging)
    table = np.stack([duplicates._thumbnail(staging, name) for name in names]).astype(np.float64)
    expected = {
        (names[a], names[b], round(float(table[a] @ table[b]), 5))
        for a, b in itertools.combinations(range(len(names)), 2)
        if table[a] @ table[b] >= duplicates.NEAR
    }
    assert set(found) == expected
    assert {("case0", "case6"), ("case2", "case7"), ("case4", "case8")} <= {pair[:2] for pair in found}
    assert [pair[2] for pair in found] == sorted((pair[2] for pair in found), reverse=True)
    assert not list(tmp_path.glob("tmp*"))
