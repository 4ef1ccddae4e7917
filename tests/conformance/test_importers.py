"""Every importer: found by itself, ordered, complete, readable, and fit to be prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cohorts import write_decathlon, write_dicom, write_folder, write_monai, write_table

from synthmed.cohort.read import IMPORTERS, list_source, read_cohort
from synthmed.config import CohortConfig, parse_config
from synthmed.files import read_json
from synthmed.prepare.prepared import load_split
from synthmed.prepare.preprocess import prepare

MAKERS: dict[str, Callable[[Path], CohortConfig]] = {
    "folder": lambda root: CohortConfig(path=str(write_folder(root))),
    "decathlon": lambda root: CohortConfig(path=str(write_decathlon(root))),
    "monai": lambda root: CohortConfig(path=str(write_monai(root))),
    "csv": lambda root: CohortConfig(path=str(write_table(root))),
    "dicom": lambda root: CohortConfig(path=str(write_dicom(root))),
    "phantom": lambda root: CohortConfig.model_validate(
        {"format": "phantom", "phantom": {"num_subjects": 6, "shape": [16, 16, 16]}}
    ),
}


@pytest.fixture(params=sorted(IMPORTERS))
def config(request: pytest.FixtureRequest, tmp_path: Path) -> CohortConfig:
    return MAKERS[request.param](tmp_path / "a cohort, é")


def test_every_importer_is_tried() -> None:
    assert set(MAKERS) == set(IMPORTERS)


def test_names_are_unique_and_sorted(config: CohortConfig) -> None:
    cohort = read_cohort(config)
    names = [case.case_id for case in cohort.cases]
    assert len(names) >= 4
    assert names == sorted(set(names))
    assert len(cohort.subject_ids) >= 4
    assert not any(sign in name for name in names for sign in "/\\\n")


def test_cases_can_be_read_and_digested(config: CohortConfig) -> None:
    cohort = read_cohort(config)
    for case in cohort.cases:
        image, label = case.read()
        assert image.array.ndim == 4
        assert (label is not None) == case.has_label
        assert label is None or label.geometry.agrees_with(image.geometry)
    assert len({case.digest() for case in cohort.cases}) == len(cohort.cases)
    assert {len(case.digest()) for case in cohort.cases} == {64}


def test_listing_twice_is_the_same(config: CohortConfig) -> None:
    assert read_cohort(config) == read_cohort(config)
    assert list_source(config) == list_source(config)


def test_it_prepares(config: CohortConfig, tmp_path: Path) -> None:
    cohort = read_cohort(config)
    settings = {"grid": [8, 8, 8], "spacing": [2.0, 2.0, 2.0]}
    chosen = config.model_copy(update={"holdout_fraction": 0.5})
    prepare(parse_config({"cohort": chosen, "preprocess": settings}), tmp_path / "out", progress=False)
    train, holdout = (load_split(tmp_path / "out", side) for side in ("train", "holdout"))
    assert sorted(train.case_ids + holdout.case_ids) == [case.case_id for case in cohort.cases]
    assert train.images.shape[1:] == (1, 8, 8, 8)
    assert (train.labels is not None) == cohort.cases[0].has_label
    assert read_json(tmp_path / "out" / "fingerprint.json")["modality"] == cohort.modality


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_of_a_decathlon_list_agree(tmp_path: Path, version: int) -> None:
    cohort = read_cohort(CohortConfig(path=str(write_decathlon(tmp_path, version=version))))
    assert [case.case_id for case in cohort.cases] == ["la_0", "la_1", "la_2", "la_3"]
    assert cohort.label_names == {1: "box", 2: "corner"}
    assert cohort.modality == "CT"
    assert all(case.label == tmp_path / "labelsTr" / f"{case.case_id}.nii.gz" for case in cohort.cases)


def test_a_monai_list_gives_patients_and_covariates_and_names_what_it_left(tmp_path: Path) -> None:
    cohort = read_cohort(CohortConfig(path=str(write_monai(tmp_path))))
    assert [(c.subject_id, dict(c.covariates)) for c in cohort.cases] == [
        (f"S{n}", {"age": 40.0 + n}) for n in range(4)
    ]
    assert cohort.notes == ("list.json: testing (1 entries) was not read",)


def test_dicom_series_are_in_hounsfield_units_under_their_patient(tmp_path: Path) -> None:
    cohort = read_cohort(CohortConfig(path=str(write_dicom(tmp_path))))
    assert cohort.subject_ids == ("D0", "D1", "D2", "D3")
    assert cohort.modality == "CT"
    assert cohort.cases[0].case_id.startswith("D0_")
    stored = np.arange(1, 241).reshape(8, 6, 5) * 4 + np.random.default_rng(0).integers(0, 900, (8, 6, 5))
    assert np.array_equal(cohort.cases[0].read()[0].array[0], stored - 1024)
