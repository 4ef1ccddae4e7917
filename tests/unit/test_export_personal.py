"""A patient's name in a sample's file name or header blocks the release, and is shown to whoever releases."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from privacy_scans import scan
from releases import Made, make_audit, make_samples, read_table, write_table

from privacy.metadata import IDENTIFYING, examine
from privacy.records import collect
from synthmed.errors import ReleaseRefused
from synthmed.io import write_volume
from synthmed.volume import Volume

NAME = "Mustermann-Erika"


def cohort(folder: Path) -> Path:
    """A scan of one patient, whose name is that of its file."""
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.array(scan(5)), np.eye(4)), folder / f"{NAME}.nii.gz")
    return folder


def in_the_file_name(samples: Path) -> None:
    rows = read_table(samples)
    old, new = rows[2]["name"], f"{NAME}-2"
    for kind in ("images", "labels"):
        (samples / kind / f"{old}.nii.gz").rename(samples / kind / f"{new}.nii.gz")
    rows[2]["name"] = new
    write_table(samples, rows)


def in_the_header(samples: Path) -> None:
    file = samples / "images" / "synthetic_0002.nii.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[228 : 228 + len(NAME)] = NAME.encode()  # aux_file of NIfTI-1
    file.write_bytes(gzip.compress(bytes(content), mtime=0))
    write_table(samples, read_table(samples))


@pytest.mark.parametrize("put", [in_the_file_name, in_the_header])
def test_the_audit_counts_it_and_the_gate_refuses(tmp_path: Path, put) -> None:  # type: ignore[no-untyped-def]
    samples = make_samples(tmp_path / "generate", n=3)
    for index, file in enumerate(sorted((samples / "images").iterdir())):  # the audit wants more voxels
        write_volume(file, Volume(np.array(scan(index))[None], np.eye(4)))
    write_table(samples, read_table(samples))
    real = collect("train", cohort(tmp_path / "real"))
    clean = examine(collect("synthetic", samples / "images"), real)
    assert [item for item in clean if item.severity == IDENTIFYING] == []
    put(samples)
    found = [i for i in examine(collect("synthetic", samples / "images"), real) if i.severity == IDENTIFYING]
    assert len(found) == 1
    assert NAME in found[0].detail
    audit = make_audit(tmp_path / "audit", samples, verdict="FAIL", identifying_headers=len(found))
    with pytest.raises(ReleaseRefused, match=r"FAIL.*could identify a patient") as caught:
        Made(samples, audit).release(tmp_path / "out" / "release")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_a_header_is_looked_at_again_whatever_the_audit_said(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate")
    in_the_header(samples)
    made = Made(samples, make_audit(tmp_path / "audit", samples))
    for formats in (("nifti",), ("bids",)):
        with pytest.raises(ReleaseRefused, match=r"synthetic.?0002.*: header field aux_file holds text"):
            made.release(tmp_path / "out" / "release", formats=formats)
        assert list((tmp_path / "out").iterdir()) == []


def test_dicom_takes_no_text_from_the_header(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate")
    in_the_header(samples)
    made = Made(samples, make_audit(tmp_path / "audit", samples))
    release = made.release(tmp_path / "release", formats=("dicom",))
    assert [p for p in release.rglob("*") if p.is_file() and NAME.encode() in p.read_bytes()] == []
    shutil.rmtree(release)
