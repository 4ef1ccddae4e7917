"""The gate's record binds every file with voxels, in whatever formats were asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from releases import Made, digest, make_audit, make_samples, oblique_affine, phantom_label, reseal

from synthmed.config import ExportConfig
from synthmed.errors import ConfigError
from synthmed.export import EXPORTERS, check_formats, verify
from synthmed.export.gate import holds_voxels
from synthmed.io import write_volume
from synthmed.volume import Volume

GATE = "audit/gate.json"
Change = Callable[[dict], object]  # type: ignore[type-arg]


@pytest.fixture(scope="module")
def released(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Made(pristine / "generate", pristine / "audit")
    return made.release(tmp_path_factory.mktemp("released") / "release", formats=("bids", "dicom", "nifti"))


@pytest.fixture
def release(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "release"))


def problems(release: Path) -> list[str]:
    return [str(finding) for finding in verify(release)]


def edit(release: Path, change: Change) -> None:
    content = json.loads((release / GATE).read_text())
    change(content)
    (release / GATE).write_text(json.dumps(content))
    reseal(release)


def test_every_file_with_voxels_is_bound_to_its_case(released: Path) -> None:
    gate = json.loads((released / GATE).read_text())
    files = {p.relative_to(released).as_posix() for p in released.rglob("*") if p.is_file()}
    assert set(gate["released"]) == {name for name in files if name.endswith((".nii.gz", ".dcm"))}
    assert all(digest(released / name) == entry["sha256"] for name, entry in gate["released"].items())
    assert gate["formats"] == ["nifti", "dicom", "bids"]
    shown = {name: (entry["case"], entry["shows"]) for name, entry in gate["released"].items()}
    assert shown["nifti/labelsTr/synthetic_0003.nii.gz"] == ("synthetic_0003", "label")
    assert shown["bids/sub-synthetic0003/anat/sub-synthetic0003_T1w.nii.gz"] == ("synthetic_0003", "image")
    dicom = {name.split("/")[1]: set() for name in shown if name.startswith("dicom/")}
    for name, entry in shown.items():
        if name.startswith("dicom/"):
            dicom[name.split("/")[1]].add(entry)
    assert dicom == {f"synthetic_000{i}": {(f"synthetic_000{i}", k) for k in ("image", "label")} for i in range(6)}


@pytest.mark.parametrize(
    "formats", [("dicom",), ("bids",), ("nifti", "bids"), ("dicom", "bids"), ("nifti", "dicom", "bids")]
)
def test_any_formats_verify(made: Made, tmp_path: Path, formats: tuple[str, ...]) -> None:
    release = made.release(tmp_path / "r", formats=formats)
    assert verify(release) == []
    head, *rows = (release / "cases.csv").read_text().splitlines()
    assert head.startswith("case,seed,condition,spacing")
    assert len(rows) == 6
    assert ("image_sha256" in head) == ("nifti" in formats)
    assert {p.name for p in release.iterdir() if p.name in EXPORTERS} == set(formats)


@pytest.mark.parametrize("labels", [(), (1, 17)])
def test_any_formats_verify_without_labels_and_with_gaps_in_their_values(tmp_path: Path, labels: tuple[int]) -> None:
    samples = make_samples(tmp_path / "generate", labels=labels)
    made = Made(samples, make_audit(tmp_path / "audit", samples))
    release = made.release(tmp_path / "r", formats=tuple(EXPORTERS))
    assert verify(release) == []
    assert json.loads((release / GATE).read_text())["relabelled"] is bool(labels)


def one(release: Path, pattern: str) -> str:
    return sorted(p.relative_to(release).as_posix() for p in release.glob(pattern))[0]


@pytest.mark.parametrize("pattern", ["dicom/*/*/MR-*/*.dcm", "dicom/*/*/SEG-*/*.dcm", "bids/sub-*/anat/*.nii.gz"])
def test_a_removed_voxel_file_with_a_forged_seal(release: Path, pattern: str) -> None:
    (release / one(release, pattern)).unlink()
    reseal(release)
    assert "audit/gate.json: the released volumes are not those it names" in problems(release)


@pytest.mark.parametrize("pattern", ["dicom/*/*/MR-*", "dicom/*/*/SEG-*"])
def test_a_case_that_is_missing_in_one_format(release: Path, pattern: str) -> None:
    folder = one(release, pattern)
    shutil.rmtree(release / folder)

    def forget(gate: dict) -> None:  # type: ignore[type-arg]
        for name in [n for n in gate["released"] if n.startswith(f"{folder}/")]:
            del gate["released"][name]

    edit(release, forget)
    kind = "an image" if "MR" in pattern else "a label"
    assert f"audit/gate.json: the cases with {kind} in dicom/ are not those approved" in problems(release)


def test_an_image_given_to_another_case(release: Path) -> None:
    names = ["synthetic_0000", "synthetic_0001"]
    files = [f"bids/sub-{n.replace('_', '')}/anat/sub-{n.replace('_', '')}_T1w.nii.gz" for n in names]

    def swap(gate: dict) -> None:  # type: ignore[type-arg]
        for file, name in zip(files, reversed(names), strict=True):
            gate["released"][file]["case"] = name

    edit(release, swap)
    assert problems(release) == ["audit/gate.json: the released images in bids/ are not those approved"]


def test_a_format_that_the_gate_does_not_name(release: Path) -> None:
    edit(release, lambda gate: gate["formats"].remove("bids"))
    assert problems(release) == ["audit/gate.json: the released formats are not those it names"]


def test_a_case_that_was_never_approved(release: Path) -> None:
    def invent(gate: dict) -> None:  # type: ignore[type-arg]
        file = one(release, "dicom/*/*/MR-*/*.dcm")
        gate["released"][file]["case"] = "somebody"

    edit(release, invent)
    assert problems(release) == ["audit/gate.json: the cases with an image in dicom/ are not those approved"]


def rewrite(release: Path, name: str) -> None:
    """Let gate and seal say what the file now is."""

    def renew(gate: dict) -> None:  # type: ignore[type-arg]
        gate["released"][name]["sha256"] = digest(release / name)

    edit(release, renew)


@pytest.mark.parametrize("pattern", ["dicom/*/*/MR-*/*.dcm", "dicom/*/*/SEG-*/*.dcm"])
def test_a_dicom_file_without_the_mark_whatever_is_forged(release: Path, pattern: str) -> None:
    name = one(release, pattern)
    data = pydicom.dcmread(release / name)
    del data.SyntheticData
    data.save_as(release / name)
    rewrite(release, name)
    [problem] = problems(release)
    assert problem.startswith(f"{name}: ")
    assert "SyntheticData" in problem


def test_a_bids_label_off_the_grid_of_its_image(release: Path) -> None:
    name = "bids/derivatives/labels/sub-synthetic0002/anat/sub-synthetic0002_dseg.nii.gz"
    shifted = oblique_affine()
    shifted[0, 3] += 1.0
    write_volume(release / name, Volume(phantom_label((1, 2))[None], shifted), dtype="uint8")
    rewrite(release, name)
    assert f"{name}: does not lie on the grid of its image" in problems(release)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("nifti/a.nii.gz", True), ("dicom/a/IM0001.dcm", True), ("dicom/index.json", False), ("README.md", False)],
)
def test_what_holds_voxels(name: str, expected: bool) -> None:
    assert holds_voxels(name) is expected


@pytest.mark.parametrize(
    ("modality", "config", "words"),
    [
        ("PT", {"formats": ("nifti", "dicom")}, ["PET is released as NIfTI alone", "dicom"]),
        ("PT", {"formats": ("bids",)}, ["bids is for MR alone", "PT"]),
        ("CT", {"formats": ("bids",)}, ["bids is for MR alone", "CT"]),
        ("MR", {"enhanced": True}, ["export.enhanced is for the format dicom", "nifti"]),
        (None, {"compression": "rle", "formats": ("bids",)}, ["export.compression is for the format dicom", "bids"]),
    ],
)
def test_formats_that_do_not_go_together(modality: str | None, config: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_formats(ExportConfig(**config), modality)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_pet_is_refused_before_anything_is_written_and_goes_out_as_nifti(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate", modality="PT")
    made = Made(samples, make_audit(tmp_path / "audit", samples))
    with pytest.raises(ConfigError, match="PET is released as NIfTI alone"):
        made.release(tmp_path / "out" / "r", formats=("nifti", "dicom"))
    assert not (tmp_path / "out").exists()
    assert verify(made.release(tmp_path / "out" / "r")) == []


@pytest.mark.parametrize("formats", [("bids", "nifti"), ("nifti", "bids", "nifti")])
def test_formats_have_one_order(formats: tuple[str, ...]) -> None:
    assert ExportConfig(formats=formats).formats == ("nifti", "bids")  # type: ignore[arg-type]
