"""Real CT and MR volumes as DICOM: what dcm2niix, ITK, highdicom and this program read is what went in."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import numpy as np
import pytest
from release_fidelity import IMAGE_READERS, NAMES, NOT_MULTI_FRAME, SEG_READERS, Phantom, compare, write_dicom_case

from synthmed.io import read_label, read_volume

pytestmark = pytest.mark.real_data


def ct(data_root: Path) -> Phantom:
    """A CT in whole HU with its tumour mask, cut to 24 slices around the tumour."""
    folder = data_root / "sts_petct" / "STS_003"
    image, label = read_volume(folder / "CT_image.nii.gz"), read_label(folder / "CT_mask.nii.gz")
    centre = int(np.argwhere(label.array[0])[:, 2].mean())
    first = max(0, centre - 12)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, 2] * first
    cut = np.s_[::, ::, first : first + 24]
    return Phantom(np.rint(image.array[0][cut]).clip(-1024, 3071), (label.array[0][cut] > 0) * 1.0, affine)


def mr(data_root: Path) -> Phantom:
    """A hippocampus with both its labels, float32."""
    name = "hippocampus_001.nii.gz"
    image = read_volume(data_root / "msd_hippocampus" / "imagesTr" / name)
    label = read_label(data_root / "msd_hippocampus" / "labelsTr" / name)
    return Phantom(image.array[0] / 3, label.array[0], image.affine)


SOURCES = {"CT": ct, "MR": mr}


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("modality", sorted(SOURCES))
def test_real_volumes_come_back(data_root: Path, tmp_path: Path, modality: str, enhanced: bool) -> None:
    source = SOURCES[modality](data_root)
    entry = write_dicom_case(tmp_path / "release", source, modality, enhanced=enhanced)
    assert entry.segments == NAMES
    for name, reader in IMAGE_READERS.items():
        if enhanced and name in NOT_MULTI_FRAME:
            continue
        (tmp_path / name).mkdir()
        (affine, _), difference = compare(
            reader(tmp_path / "release" / entry.series, tmp_path / name), source.image, source.affine
        )
        # dcm2niix reckons in float32, whose steps are 3e-5 mm at the 400 mm from the origin where this CT begins.
        assert affine <= max(1e-5, float(np.spacing(np.float32(np.abs(source.affine).max())))), name
        # float32 readers return values of up to 1000 to within 1e-4.
        assert difference.max() <= (0 if modality == "CT" else entry.slope / 2 + 1e-4), name
    for name, reader in SEG_READERS.items():
        (tmp_path / f"seg-{name}").mkdir()
        (affine, _), difference = compare(
            reader(tmp_path / "release" / entry.seg, tmp_path / f"seg-{name}"), source.label, source.affine
        )
        assert affine <= 1e-5, name
        assert difference.max() == 0, name
