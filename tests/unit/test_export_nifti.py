"""The nnU-Net and MONAI layout, and the headers that mark synthetic data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImaged
from releases import SHAPE, Made, digest, make_audit, make_samples, oblique_affine, phantom_image, phantom_label

from synthmed.errors import InputError
from synthmed.export.nifti import consecutive_values, read_header, relabel, structure_names
from synthmed.io import write_volume
from synthmed.volume import Volume


def test_nnunet_layout_with_the_audited_bytes(made: Made, tmp_path: Path) -> None:
    nifti = made.release(tmp_path / "release") / "nifti"
    names = [f"synthetic_{i:04d}" for i in range(6)]
    assert sorted(p.name for p in (nifti / "imagesTr").iterdir()) == [f"{n}_0000.nii.gz" for n in names]
    assert sorted(p.name for p in (nifti / "labelsTr").iterdir()) == [f"{n}.nii.gz" for n in names]
    for name in names:
        assert digest(nifti / "imagesTr" / f"{name}_0000.nii.gz") == digest(made.samples / "images" / f"{name}.nii.gz")
        assert digest(nifti / "labelsTr" / f"{name}.nii.gz") == digest(made.samples / "labels" / f"{name}.nii.gz")
    assert json.loads((nifti / "dataset.json").read_text()) == {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "left": 1, "label_2": 2},
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }


def test_datalist_loads_in_monai_with_its_voxels(made: Made, tmp_path: Path) -> None:
    nifti = made.release(tmp_path / "release") / "nifti"
    cases = load_decathlon_datalist(nifti / "datalist.json", data_list_key="training")
    assert len(cases) == 6
    loaded = LoadImaged(keys=["image", "label"], image_only=True)(cases[4])
    np.testing.assert_array_equal(loaded["image"].numpy(), phantom_image(4))
    np.testing.assert_array_equal(loaded["label"].numpy(), phantom_label((1, 2)))
    np.testing.assert_allclose(loaded["image"].affine.numpy(), oblique_affine(), atol=1e-5)


def test_images_without_labels_go_where_nnunet_keeps_such_cases(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate", labels=())
    nifti = Made(samples, make_audit(tmp_path / "audit", samples)).release(tmp_path / "release") / "nifti"
    assert sorted(p.name for p in nifti.iterdir()) == ["datalist.json", "dataset.json", "imagesTs"]
    assert json.loads((nifti / "dataset.json").read_text())["numTraining"] == 0
    cases = load_decathlon_datalist(nifti / "datalist.json", data_list_key="training")
    assert [set(case) for case in cases] == [{"image"}] * 6
    assert all(Path(case["image"]).is_file() for case in cases)


def test_gaps_in_label_values_are_closed_and_recorded(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate", labels=(1, 17, 300)[:2])
    release = Made(samples, make_audit(tmp_path / "audit", samples)).release(tmp_path / "release")
    dataset = json.loads((release / "nifti" / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "left": 1, "label_17": 2}
    assert dataset["generated_label_values"] == {"0": 0, "1": 1, "2": 17}
    label = nib.load(release / "nifti" / "labelsTr" / "synthetic_0003.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj), phantom_label((1, 2)))
    np.testing.assert_allclose(label.affine, oblique_affine(), atol=1e-5)
    gate = json.loads((release / "audit" / "gate.json").read_text())
    assert gate["relabelled"] is True
    assert gate["approved"]["labels"]["synthetic_0003"] == digest(samples / "labels" / "synthetic_0003.nii.gz")


def test_a_declared_value_that_no_sample_shows_keeps_its_place() -> None:
    assert consecutive_values({0, 3}, (0, 1, 3)) == {0: 0, 1: 1, 3: 2}


@given(st.sets(st.integers(0, 1000)), st.sets(st.integers(0, 1000)))
def test_consecutive_values_keep_order_and_start_at_background(found: set[int], declared: set[int]) -> None:
    values = consecutive_values(found, declared)
    assert values[0] == 0
    assert found | declared <= set(values)
    assert list(values.values()) == list(range(len(values)))
    assert list(values) == sorted(values)


@pytest.mark.parametrize("names", [{1: "left", 2: "left"}, {1: "background"}])
def test_two_structures_of_one_name_are_refused(names: dict[int, str]) -> None:
    with pytest.raises(InputError, match="Two structures"):
        structure_names({0: 0, 1: 1, 2: 2}, names)


def test_relabel_writes_each_value_and_more_than_256_of_them(tmp_path: Path) -> None:
    array = np.arange(300.0).reshape(1, 10, 6, 5) * 3
    file = tmp_path / "label.nii.gz"
    write_volume(file, Volume(array, oblique_affine()), dtype="int16")
    relabel(file, {3 * i: i for i in range(300)})
    np.testing.assert_array_equal(np.asarray(nib.load(file).dataobj), array[0] / 3)


def test_a_label_that_is_no_label_map_is_refused(made: Made, tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "broken")
    file = samples / "labels" / "synthetic_0001.nii.gz"
    write_volume(file, Volume(phantom_image(1)[None] + 0.5, oblique_affine()), dtype="float32")
    from releases import read_table, write_table

    write_table(samples, read_table(samples))
    broken = Made(samples, make_audit(tmp_path / "broken_audit", samples))
    with pytest.raises(InputError, match=r"synthetic_0001\.nii\.gz is not a label map"):
        broken.release(tmp_path / "out" / "release")
    assert list((tmp_path / "out").iterdir()) == []


def plain(**header: object) -> nib.Nifti1Image:
    """A volume whose header is right but for `header`."""
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), oblique_affine())
    image.set_qform(oblique_affine(), 1)
    image.set_sform(oblique_affine(), 1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"SYNTHETIC"
    for key, value in header.items():
        image.header[key] = value
    return image


def test_a_right_header_has_no_problem(tmp_path: Path) -> None:
    nib.save(plain(), tmp_path / "x.nii.gz")
    geometry, problems = read_header(tmp_path / "x.nii.gz")
    assert problems == []
    assert geometry.shape == SHAPE
    np.testing.assert_allclose(geometry.affine, oblique_affine(), atol=1e-5)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ({"descrip": b"FreeSurfer"}, "descrip is not SYNTHETIC"),
        ({"descrip": b"SYNTHETIC from patient 17"}, "descrip is not SYNTHETIC"),
        ({"descrip": b""}, "descrip is not SYNTHETIC"),
        ({"aux_file": b"DOE^JANE"}, "header field aux_file holds text"),
        ({"db_name": b"DOE^JANE"}, "header field db_name holds text"),
        ({"intent_name": b"DOE^JANE"}, "header field intent_name holds text"),
        ({"sform_code": 2}, "sform and qform codes are 2 and 1, not 1 and 1"),
        ({"qform_code": 0}, "sform and qform codes are 1 and 0, not 1 and 1"),
        ({"qoffset_x": 3.0}, "sform and qform differ"),
        ({"xyzt_units": 1}, "spatial unit is meter, not mm"),
    ],
)
def test_each_fault_of_a_header_is_named(tmp_path: Path, header: dict[str, object], problem: str) -> None:
    nib.save(plain(**header), tmp_path / "x.nii.gz")
    assert read_header(tmp_path / "x.nii.gz")[1] == [problem]


def test_a_header_extension_is_named(tmp_path: Path) -> None:
    image = plain()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    nib.save(image, tmp_path / "x.nii.gz")
    assert read_header(tmp_path / "x.nii.gz")[1] == ["has a header extension, which may hold anything"]


def test_a_file_name_inside_gzip_is_named(tmp_path: Path) -> None:
    with (tmp_path / "x.nii.gz").open("wb") as stream, gzip.GzipFile("jane_doe.nii", "wb", fileobj=stream) as packed:
        packed.write(plain().to_bytes())
    assert read_header(tmp_path / "x.nii.gz")[1] == ["gzip carries a file name, a comment or extra data"]


NOT_NIFTI = {"empty": b"", "text": b"not gzip"} | {
    f"gzip of {len(part)} bytes": gzip.compress(part) for part in (b"", b"short", bytes(400))
}


@pytest.mark.parametrize("content", NOT_NIFTI.values(), ids=NOT_NIFTI.keys())
def test_what_is_not_nifti_raises_one_kind_of_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.nii.gz").write_bytes(content)
    with pytest.raises(ValueError):
        read_header(tmp_path / "x.nii.gz")


def test_a_truncated_volume_raises(tmp_path: Path) -> None:
    nib.save(plain(), tmp_path / "x.nii.gz")
    (tmp_path / "x.nii.gz").write_bytes((tmp_path / "x.nii.gz").read_bytes()[:40])
    with pytest.raises(ValueError):
        read_header(tmp_path / "x.nii.gz")
