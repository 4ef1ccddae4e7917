"""A head with a nose is a face; without one, cut open, or of another size it is none."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.faces import has_face, measure


def _head(step: float = 3.0, nose: bool = True, scale: float = 1.0) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return an ellipsoid of 150 x 190 x 230 mm with a neck and, 120 mm below its vertex, a cone for a nose."""
    edges = np.array([200.0, 240.0, 250.0])
    x, y, z = (np.arange(int(edge / step)) * step for edge in edges)
    x, y, z = np.meshgrid(x - 100, y - 110, z - 240, indexing="ij", sparse=True)
    skull = ((x / 75) ** 2 + (y / 95) ** 2 + ((z + 115) / 115) ** 2 <= 1) | (x**2 + (y + 20) ** 2 <= 55**2) & (z < -170)
    height = np.clip(1 - np.abs(z + 130) / 24, 0, 1)
    bump = (np.abs(x) <= 18 * height) & (y > 60) & (y <= 94 + 24 * height) if nose else np.zeros_like(skull)
    body = np.broadcast_to(skull | bump, skull.shape)
    noise = np.random.default_rng(0).uniform(0, 0.03, body.shape)
    return ((body * 0.8 + noise) * scale).astype(np.float32), (step, step, step)


@pytest.mark.parametrize("step", [1.5, 2.0, 3.0, 4.0])
def test_a_head_with_a_nose_is_a_face_at_any_voxel_size(step: float) -> None:
    assert has_face(*_head(step))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_intensity_scale_does_not_matter(scale: float) -> None:
    assert has_face(*_head(scale=scale))


def test_measures_are_in_millimetres() -> None:
    found = measure(*_head(2.0))
    assert found is not None
    assert found.width == pytest.approx(150, abs=8)
    assert found.length == pytest.approx(190, abs=8)
    assert found.setback == pytest.approx(-24, abs=8)


def test_a_head_without_a_nose_is_none() -> None:
    assert not has_face(*_head(nose=False))


def test_a_head_whose_face_was_cut_off_is_none() -> None:
    volume, spacing = _head()
    volume[:, int(160 / 3) :, : int(170 / 3)] = 0
    assert not has_face(volume, spacing)


def test_other_sizes_and_fields_are_none() -> None:
    volume, spacing = _head()
    assert not has_face(volume, (1.2, 1.2, 1.2))
    assert not has_face(volume, (6.0, 6.0, 6.0))
    assert not has_face(volume[:, :, :60], spacing)
    assert not has_face(volume[:, : int(150 / 3)], spacing)
    assert not has_face(np.ones((80, 80, 80), dtype=np.float32), spacing)
