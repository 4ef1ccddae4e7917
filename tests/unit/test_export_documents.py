"""Datasheet, model card and licence: what is known, what is not, and nothing about a single person."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from releases import Made, make_audit, make_samples

from synthmed.config import Config, ExportConfig
from synthmed.export.approval import approve, read_report
from synthmed.export.bids import write_bids
from synthmed.export.cohort import open_approved
from synthmed.export.documents.licence import hub_fields, render_license, spdx_address
from synthmed.export.documents.page import PAGE
from synthmed.export.documents.writing import write_documents
from synthmed.export.nifti import write_nifti

EVALUATION: dict[str, Any] = {
    "utility": {
        "measured": True,
        "sets": {
            "tstr": {"dice": {"value": 0.7, "low": 0.65, "high": 0.75, "n": 40}},
            "trtr": {"dice": {"value": 0.8, "low": 0.75, "high": 0.85, "n": 40}},
        },
        "ratio": {"value": 0.875, "low": 0.8, "high": 0.95},
    },
    "conditions": {
        "covariates": {
            "age": {
                "kind": "scalar",
                "holdout": {"correlation": {"value": 0.9, "low": 0.85, "high": 0.95}},
                "synthetic": {"correlation": {"value": 0.8, "low": 0.75, "high": 0.85}},
            }
        }
    },
    "distance": {
        "measured": True,
        "radiomics": {
            "kid": {
                "synthetic": {"value": 0.2, "low": 0.1, "high": 0.3},
                "floor": {"value": 0.02, "low": 0.01, "high": 0.03},
                "ratio": {"value": 1.5, "low": 1.2, "high": 1.9},
            },
            "auc": {"synthetic": None, "floor": None, "ratio": None},
        },
    },
    "diversity": {
        "synthetic": {"value": 0.6, "low": 0.5, "high": 0.7},
        "real": {"value": 0.55, "low": 0.5, "high": 0.6},
    },
    "autoencoder": {"psnr_db": {"value": 32.0, "low": 31.0, "high": 33.0}},
    "labels": {"left": {"train": {"mean_mm3": 159.957}, "holdout": {"mean_mm3": 156.153}}},
}


def documents(made: Made, part: Path, config: ExportConfig | None = None, **known: Any) -> dict[str, str]:
    """Write the documents of a NIfTI and BIDS release; return their text."""
    (part / "audit").mkdir(parents=True)
    settings = config or ExportConfig()
    cohort = open_approved(made.samples, approve(made.samples, made.report, "default"))
    columns: dict[str, dict[str, str]] = {s.name: {} for s in cohort.samples}
    for exporter in (write_nifti, write_bids):
        for case, cells in exporter(cohort, part, settings).items():
            columns[case] |= cells
    (part / "cases.csv").write_text("case,seed\nsynthetic_0000,1000\n")
    write_documents(part, settings, cohort, read_report(made.report), columns, **known)
    return {file.name: file.read_text() for file in (*part.iterdir(), part / PAGE) if file.is_file()}


def test_the_same_input_gives_the_same_documents(made: Made, tmp_path: Path) -> None:
    known = {"run": Config(), "evaluation": EVALUATION}
    first = documents(made, tmp_path / "a", **known)
    assert first == documents(made, tmp_path / "b", **known)
    written = {"README.md", "LICENSE", "DATASHEET.md", "MODEL_CARD.md", "croissant.json", "report.html"}
    assert set(first) == written | {"cases.csv"}
    described = {d["@id"] for d in json.loads(first["croissant.json"])["distribution"]}
    assert {"README.md", "DATASHEET.md", "MODEL_CARD.md", "cases.csv"} <= described


def test_datasheet_answers_what_is_known_and_says_what_is_not(made: Made, tmp_path: Path) -> None:
    config = ExportConfig(title="Hips", license="CC-BY-4.0", source_statement="One clinic.")
    sheet = documents(made, tmp_path / "part", config)["DATASHEET.md"]
    for line in (
        "# Datasheet: Hips",
        "**How many are there?** 6.",
        "9 x 7 x 5 voxels; intensities: arbitrary units, 0 to 1000. Formats: NIfTI-1 (nnU-Net v2 and MONAI), BIDS.",
        "voxel labels: left, label_2.",
        "what the model was asked for: age.",
        "One clinic. The audit counts 70 scans of 60 training patients; 44 scans of 40 other patients, held out",
        "each scan's 0.5 and 99.9 percentiles were put on 0 and 1000",
        "CC-BY-4.0; see `LICENSE`.",
        "**Who maintains it, and how are errors reported?** Not known",
        "was there an ethics review?** Not known",
    ):
        assert line in sheet
    sections = [line for line in sheet.splitlines() if line.startswith("## ")]
    assert len(sections) == 7
    assert sheet.count("?** ") == 33


def test_model_card_has_settings_and_figures_where_they_are_known(made: Made, tmp_path: Path) -> None:
    card = documents(made, tmp_path / "part", run=Config(), evaluation=EVALUATION)["MODEL_CARD.md"]
    for line in (
        "transformer over latent cells, width 256, depth 6",
        "rectified path, velocity prediction",
        "channels 32, 64, 128; 64 latent channels; each latent cell 8 voxels a side",
        "| Training of the denoiser | at most 1000 steps of 8 |",
        "| Segmenter, mean Dice | 0.700 (0.650 to 0.750) | 0.800 (0.750 to 0.850) |",
        "| as a share of real | 0.875 (0.800 to 0.950) | 1 |",
        "| Kernel distance, radiomics | 0.200 (0.100 to 0.300) | 0.020 (0.010 to 0.030) |",
        "| times the floor | 1.500 (1.200 to 1.900) | 1 |",
        "| age asked and seen, correlation | 0.800 (0.750 to 0.850) | 0.900 (0.850 to 0.950) |",
        "| Likeness of pairs, MS-SSIM | 0.600 (0.500 to 0.700) | 0.550 (0.500 to 0.600) |",
        "| Autoencoder on held-out scans, PSNR in dB |  | 32.000 (31.000 to 33.000) |",
        "| Training patients | 60 | at least 20 |",
        "Wilson 1927",
    ):
        assert line in card
    assert "159.9" not in card  # what real patients' organs measure stays home


def test_the_page_has_what_is_known_and_nothing_of_real_organs(made: Made, tmp_path: Path) -> None:
    logs = {"denoiser": [{"step": "5", "train_loss": "0.4", "holdout_loss": "0.5", "seconds": "77.125"}]}
    page = documents(made, tmp_path / "part", run=Config(), evaluation=EVALUATION, training=logs)["report.html"]
    for words in ("0.700 (0.650 to 0.750)", "0.0200 (0.0100 to 0.0300)", "memorisation gap 0.1", "Wilson 1927", "PASS"):
        assert words in page
    assert "6 of 6 synthetic volumes" in page
    for words in ("159.9", "160 (", "156", "77.1"):
        assert words not in re.sub(r'src="data:[^"]*"|<script.*?</script>', "", page, flags=re.DOTALL)


def test_model_card_does_not_make_up_what_it_was_not_told(made: Made, tmp_path: Path) -> None:
    card = documents(made, tmp_path / "part")["MODEL_CARD.md"]
    assert "No figures of fidelity or utility" in card
    assert "Autoencoder |" not in card
    assert "| Sampler | dpmpp_2m |" in card


def test_unmeasured_figures_are_left_out(made: Made, tmp_path: Path) -> None:
    unmeasured = {"utility": {"measured": False}, "distance": {"measured": False, "reason": "few"}, "autoencoder": {}}
    card = documents(made, tmp_path / "part", evaluation=unmeasured)["MODEL_CARD.md"]
    assert "No figures of fidelity or utility" in card


def test_nothing_of_the_run_s_paths_reaches_a_document(made: Made, tmp_path: Path) -> None:
    run = Config.model_validate(
        {"name": "ward7", "cohort": {"path": "/data/ward7/scans", "subjects": "names.csv", "format": "decathlon"}}
    )
    text = "\n".join(documents(made, tmp_path / "part", run=run, evaluation=EVALUATION).values())
    for word in ("ward7", "names.csv", "scans/", "/home/eve", str(tmp_path)):
        assert word not in text


def test_what_validators_said_is_spoken_of_where_it_is(made: Made, tmp_path: Path) -> None:
    asked = ExportConfig(validate_with_tools=True)
    assert "`validation/`" in documents(made, tmp_path / "asked", asked)["README.md"]
    assert "`validation/`" not in documents(made, tmp_path / "not asked")["README.md"]


def test_window_normalisation_and_no_labels(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", labels=())
    record = json.loads((samples / "generation.json").read_text())
    record["space"] |= {"normalisation": "window", "intensity_range": [-1000, 400]}
    (samples / "generation.json").write_text(json.dumps(record))
    sheet = documents(Made(samples, make_audit(tmp_path / "audit", samples)), tmp_path / "part")["DATASHEET.md"]
    assert "intensities were clipped to -1000 to 400" in sheet
    assert "**Is there a label or target?** No." in sheet


@pytest.mark.parametrize(
    ("name", "hub", "address"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}, "https://spdx.org/licenses/CC-BY-4.0"),
        ("pddl-1.0", {"license": "pddl"}, "https://spdx.org/licenses/PDDL-1.0"),
        ("Ours", {"license": "other", "license_name": "Ours", "license_link": "LICENSE"}, None),
    ],
)
def test_licences(name: str, hub: dict[str, str], address: str | None) -> None:
    assert hub_fields(name) == hub
    assert spdx_address(name) == address
    text = render_license(ExportConfig(title="Hips", license=name))
    assert (f"Its text: {address}" in text) == (address is not None)
    assert text.startswith("Hips\n\n")
