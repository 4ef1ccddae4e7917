"""Volumes: what is refused, and that moving axes moves the affine with them."""

import numpy as np
import pytest

from synthmed.errors import InputError
from synthmed.volume import Geometry, Volume, reorient

OBLIQUE = np.array([[-1.8, 0.3, 0.1, 10], [0.2, 0.9, -0.6, -20], [0.1, 0.5, 2.4, 30], [0, 0, 0, 1.0]])


def _world(volume, index):
    return (volume.affine @ [*index, 1])[:3]


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR", "SAL"])
def test_reorient_keeps_every_voxel_at_its_place(axcodes):
    volume = Volume(np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5), OBLIQUE)
    moved = reorient(volume, axcodes)
    assert moved.orientation == axcodes
    for index in [(0, 0, 0), (2, 1, 4), (1, 3, 2)]:
        value = volume.array[(1, *index)]
        place = np.argwhere(moved.array[1] == value)[0]
        np.testing.assert_allclose(_world(moved, place), _world(volume, index), atol=1e-9)


def test_spacing_and_agreement():
    geometry = Geometry((3, 4, 5), np.diag([2.0, -3.0, 0.5, 1.0]))
    assert geometry.spacing == (2.0, 3.0, 0.5)
    assert geometry.orientation == "RPS"
    nudged = geometry.affine.copy()
    nudged[0, 3] = 1e-4
    assert geometry.agrees_with(Geometry((3, 4, 5), nudged))
    nudged[0, 3] = 0.1
    assert not geometry.agrees_with(Geometry((3, 4, 5), nudged))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 0, 4, 5), (1, 1, 2, 3, 4)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(InputError, match="shape"):
        Volume(np.zeros(shape), np.eye(4))


@pytest.mark.parametrize("affine", [np.eye(3), np.diag([1, 0, 1, 1]), np.full((4, 4), np.nan)])
def test_unusable_affines_are_refused(affine):
    with pytest.raises(InputError, match="affine"):
        Volume(np.zeros((1, 2, 2, 2)), affine)
