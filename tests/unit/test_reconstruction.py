"""What an autoencoder keeps, and how segmentations agree, on values computed by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthmed.evaluation.reconstruction import dice_per_structure, psnr, reconstruction


def own(n):
    return [f"p{i}" for i in range(n)]


class TestPsnr:
    def test_by_hand(self):
        reference = torch.zeros(2, 1, 4, 4, 4)
        other = reference + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1, 1)
        assert psnr(reference, other) == pytest.approx([20.0, 40.0], abs=1e-4)  # 10 log10(4 / 0.04)

    def test_equal_images_stay_finite(self):
        x = torch.rand(1, 1, 4, 4, 4)
        assert psnr(x, x) == pytest.approx([10 * np.log10(4e10)])


class TestDice:
    def test_by_hand(self):
        a = torch.zeros(1, 1, 4, 1, 1, dtype=torch.uint8)
        b = a.clone()
        a[0, 0, :3] = 1
        b[0, 0, 2:] = 1
        assert dice_per_structure(a, b, 2).tolist() == [[pytest.approx(2 * 1 / (3 + 2))]]

    def test_absent_from_both_is_one_from_one_is_zero(self):
        a = torch.tensor([0, 1, 1, 1]).view(1, 1, 4, 1, 1)
        b = torch.tensor([0, 1, 1, 2]).view(1, 1, 4, 1, 1)
        assert dice_per_structure(a, b, 4).tolist() == [[pytest.approx(0.8), 0.0, 1.0]]

    @given(st.integers(0, 2**16))
    @settings(max_examples=20, deadline=None)
    def test_is_symmetric_and_within_bounds(self, seed):
        rng = np.random.default_rng(seed)
        a, b = (torch.tensor(rng.integers(0, 3, (2, 1, 3, 3, 3))) for _ in range(2))
        score = dice_per_structure(a, b, 3)
        assert np.array_equal(score, dice_per_structure(b, a, 3))
        assert ((score >= 0) & (score <= 1)).all()


class OffByTenth(torch.nn.Module):
    """An autoencoder that adds 0.1 to the image and forgets the last structure."""

    def __init__(self):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.tensor(0.1))

    def reconstruct(self, image, labels=None):
        logits = None if labels is None else torch.cat([(labels == index).float() for index in range(2)], 1)
        return image + self.offset, logits


class TestReconstruction:
    def test_by_hand(self):
        images, labels = torch.zeros(10, 1, 4, 4, 4), torch.zeros(10, 1, 4, 4, 4, dtype=torch.uint8)
        labels[:, :, 0], labels[:, :, 1] = 1, 2
        found = reconstruction(OffByTenth(), images, labels, ["front", "back"], own(10), seed=0)
        assert found["psnr_db"]["value"] == pytest.approx(10 * np.log10(4 / 0.01), abs=1e-4)
        assert found["psnr_db"]["sd"] == pytest.approx(0, abs=1e-6)
        assert {name: dice["value"] for name, dice in found["dice"].items()} == {"front": 1.0, "back": 0.0}

    def test_without_labels_only_the_image_counts(self):
        found = reconstruction(OffByTenth(), torch.zeros(2, 1, 4, 4, 4), None, [], own(2), seed=0)
        assert found.keys() == {"psnr_db"}

    def test_decoded_intensities_are_clipped_to_the_scale(self):
        found = reconstruction(OffByTenth(), torch.ones(2, 1, 4, 4, 4), None, [], own(2), seed=0)
        assert found["psnr_db"]["value"] > 100
