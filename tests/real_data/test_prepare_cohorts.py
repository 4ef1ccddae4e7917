"""The shipped configurations of brains and PET on real scans: masked, grouped, centred, in their own units."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats

from synthmed.config import Config, load_config
from synthmed.files import read_json
from synthmed.prepare.prepared import load_space, load_split
from synthmed.prepare.preprocess import prepare

pytestmark = pytest.mark.real_data
NO_ROW = ("IXI638-HH-2786", "IXI661-HH-2788")


def voxels(file: Path) -> NDArray[np.float64]:
    return np.asarray(nib.load(file).dataobj, dtype=np.float64)


def volume(label: Path) -> float:
    """Return the volume of everything that is labelled, mm^3."""
    return float(np.count_nonzero(voxels(label)) * np.prod(nib.affines.voxel_sizes(nib.load(label).affine)))


def sides(out: Path) -> dict[str, tuple[Path, Path, dict[str, float | str]]]:
    """Case -> image, label and covariates."""
    rows = csv.DictReader((out / "cases.csv").open(encoding="utf-8"))
    return {
        row["case"]: (
            out / row["split"] / "images" / f"{row['case']}.nii.gz",
            out / row["split"] / "labels" / f"{row['case']}.nii.gz",
            json.loads(row["covariates"]),
        )
        for row in rows
    }


@pytest.fixture(scope="module")
def brains(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, Path]:
    """Prepare every seventh brain, and the two that the table does not know."""
    source, folder = data_root.resolve() / "ixi_2mm", tmp_path_factory.mktemp("ixi")
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    names = [file.name.removesuffix("_T1.nii.gz") for file in sorted((source / "t1").iterdir())]
    for kind, ending in (("t1", "_T1.nii.gz"), ("dlmuse_seg", "_T1_DLMUSE.nii.gz")):
        (folder / kind).mkdir()
        for name in {*names[::7], *NO_ROW}:
            (folder / kind / f"{name}{ending}").symlink_to(source / kind / f"{name}{ending}")
    (folder / "participants.csv").symlink_to(source / "participants.csv")
    config = load_config("brain_t1", [f"cohort.path='{folder}'"])
    prepare(config, folder / "out", progress=False)
    return config, folder, folder / "out"


def test_brains_hold_nothing_from_outside(brains: tuple[Config, Path, Path]) -> None:
    """IXI is not defaced: 8 mm from the brain along every axis, as far as the blur reaches, every voxel is 0."""
    _, folder, out = brains
    for case, (image, _, _) in list(sides(out).items())[::3]:
        seen, seg = nib.load(image), nib.load(folder / "dlmuse_seg" / f"{case}_DLMUSE.nii.gz")
        near = ndimage.binary_dilation(np.asarray(seg.dataobj) > 0, np.ones((3, 3, 3)), iterations=4)
        places = np.argwhere(np.asarray(seen.dataobj) > 0)
        there = nib.affines.apply_affine(np.linalg.inv(seg.affine) @ seen.affine, places)
        assert near[tuple(np.rint(there).astype(int).T)].all()
        # A tenth of the range is about where a voxel is half inside: what is brighter is as large as the brain.
        bright = np.count_nonzero(np.asarray(seen.dataobj) > 100) * 64
        assert bright == pytest.approx(np.count_nonzero(np.asarray(seg.dataobj)) * 8, rel=0.05)


def test_brains_fit_and_their_structures_keep_their_volumes(brains: tuple[Config, Path, Path]) -> None:
    config, _, out = brains
    names = ("ventricles", "grey matter", "white matter", "cerebellum", "brain stem")
    assert dict(load_space(out).label_names) == dict(enumerate(names, 1))
    for case, entry in read_json(out / "records.json").items():
        assert entry["label_voxels_cut"] == 0, case
        now = np.bincount(voxels(sides(out)[case][1]).astype(int).ravel(), minlength=6)[1:] * 64
        before = np.array([entry["facts"]["label_voxels"][str(value)] for value in range(1, 6)]) * 8
        assert now == pytest.approx(before, rel=0.04), case
    assert config.preprocess.mask == "label"
    warnings = read_json(out / "fingerprint.json")["warnings"]
    assert "label values in no group became background: 1, 46, 69" in warnings


def test_ventricles_grow_with_age_and_who_has_no_row_stays(brains: tuple[Config, Path, Path]) -> None:
    _, _, out = brains
    cases = sides(out)
    assert {case for case, (_, _, known) in cases.items() if not known} == {f"{name}_T1" for name in NO_ROW}
    known = [(row["Age"], np.count_nonzero(voxels(label) == 1)) for _, label, row in cases.values() if row]
    assert stats.spearmanr(*np.array(known, dtype=np.float64).T).statistic > 0.3
    train = load_split(out, "train")
    assert train.images.shape[1:] == (1, 40, 48, 40)
    assert float(train.images.min()) == -1.0
    assert 0.9 < float(train.images.max()) <= 1.0


def test_pet_is_in_suv_about_the_tumour(data_root: Path, tmp_path: Path) -> None:
    source = data_root.resolve() / "sts_petct"
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    prepare(load_config("body_pet", [f"cohort.path='{source}'"]), tmp_path, progress=False)
    records = read_json(tmp_path / "records.json")
    assert sum(entry["label_voxels_cut"] > 0 for entry in records.values()) == 3
    for case, (image, label, _) in sides(tmp_path).items():
        found, tumour = voxels(image), voxels(label) > 0
        before, there = voxels(source / case / "PET_image.nii.gz"), voxels(source / case / "PET_mask.nii.gz") > 0
        assert nib.load(image).get_data_dtype() == np.float32
        assert 0 <= found.min() <= found.max() <= 20
        if records[case]["label_voxels_cut"]:
            continue
        assert found[tumour].mean() == pytest.approx(np.clip(before, 0, 20)[there].mean(), rel=0.08), case
        assert volume(label) == pytest.approx(volume(source / case / "PET_mask.nii.gz"), rel=0.05), case
        places = np.argwhere(tumour)
        assert (np.abs((places.min(axis=0) + places.max(axis=0)) / 2 - [15.5, 15.5, 19.5]) <= 1.5).all(), case
