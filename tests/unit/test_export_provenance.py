"""What the statement says, and what it must not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from releases import Made, digest, make_audit, make_samples, statement_of

from privacy.policy import load_policy
from synthmed import __version__
from synthmed.config import Config, DenoiserTrainingConfig, ExportConfig, parse_config
from synthmed.export import approve, export, verify
from synthmed.export.provenance import CONFIGURATION, public_configuration

MODELS = {"autoencoder": "a" * 64, "denoiser": "d" * 64}
SECRET = "Mustermann"


@pytest.fixture
def with_models(tmp_path: Path) -> Made:
    samples = make_samples(tmp_path / "generate")
    record = json.loads((samples / "generation.json").read_text())
    (samples / "generation.json").write_text(json.dumps(record | MODELS))
    return Made(samples, make_audit(tmp_path / "audit", samples))


def release_of(made: Made, out: Path, run: Config) -> Path:
    approval = approve(made.samples, made.report, "default")
    return export(made.samples, approval, out, config=run.export, audit_dir=made.audit, run=run)


def test_predicate_names_models_policy_audit_and_software(with_models: Made, tmp_path: Path) -> None:
    run = parse_config({"seed": 7, "sampling": {"guidance_scale": 1.5}})
    predicate = statement_of(release_of(with_models, tmp_path / "r", run))["predicate"]
    build = predicate["buildDefinition"]
    resolved = {item["name"]: item["digest"]["sha256"] for item in build["resolvedDependencies"]}
    assert resolved["autoencoder"] == "a" * 64
    assert resolved["denoiser"] == "d" * 64
    assert resolved["policy default"] == load_policy("default").sha256
    assert resolved["generation.json"] == digest(with_models.samples / "generation.json")
    assert resolved["images/synthetic_0003.nii.gz"] == digest(with_models.samples / "images/synthetic_0003.nii.gz")
    assert len(resolved) == 2 + 1 + 2 + 6 + 6
    parameters = build["externalParameters"]
    assert parameters["policy"] == {"name": "default", "sha256": load_policy("default").sha256}
    assert parameters["configuration"]["seed"] == 7
    assert parameters["configuration"]["sampling"]["guidance_scale"] == 1.5
    records = {item["name"]: item["digest"]["sha256"] for item in predicate["runDetails"]["byproducts"]}
    assert records["audit/report.json"] == digest(with_models.report)
    assert set(records) == {"audit/gate.json", "audit/report.html", "audit/report.json", "audit/report.md"}
    versions = predicate["runDetails"]["builder"]["version"]
    assert versions["synthmed"] == __version__
    assert set(versions) == {"synthmed", "torch", "monai"}


def test_no_time_and_no_run_give_only_what_is_known(made: Made, tmp_path: Path) -> None:
    text = json.dumps(statement_of(made.release(tmp_path / "r")))
    parameters = json.loads(text)["predicate"]["buildDefinition"]["externalParameters"]
    assert set(parameters["configuration"]) == {"export"}
    assert "startedOn" not in text
    assert "finishedOn" not in text


def test_no_path_and_no_name_of_the_cohort(made: Made, tmp_path: Path) -> None:
    from synthmed.export.signing import make_key

    key = tmp_path / f"{SECRET}.pem"
    make_key(key)
    cohort: dict[str, Any] = dict.fromkeys(("path", "images", "labels", "subjects", "covariates"), f"/home/{SECRET}")
    run = parse_config(
        {
            "name": SECRET,
            "cohort": cohort | {"label_names": {1: SECRET}},
            "audit": {"policy": f"/home/{SECRET}.yaml"},
            "export": {"key": str(key)},
        }
    )
    release = release_of(made, tmp_path / "r", run)
    assert verify(release) == []
    found = [p.name for p in release.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert found == []
    assert SECRET not in json.dumps(statement_of(release))


def free_text(section: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of the settings that may hold any text."""
    names = set()
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= free_text(kind, f"{prefix}{name}.")
        elif "str" in str(kind) or "Path" in str(kind):
            names.add(f"{prefix}{name}")
    return names


def test_every_free_text_that_is_stated_was_meant_to_be_public() -> None:
    """A new setting that may hold a path shows here, and somebody decides."""
    stated = {
        f"{section}.{key}"
        for section, values in public_configuration(Config()).items()
        if isinstance(values, dict)
        for key in values
    }
    assert free_text(Config) & stated == {
        "preprocess.orientation",
        "conditioning.classes",
        "conditioning.scalars",
        "export.title",
        "export.license",
        "export.source_statement",
    }
    assert "audit" not in CONFIGURATION


def test_key_and_validation_do_not_change_what_is_stated() -> None:
    plain, other = Config(), Config(export=ExportConfig(key=Path("k.pem"), validate_with_tools=True), name="x")
    assert public_configuration(plain) == public_configuration(other)


def test_in_how_many_parts_a_network_was_trained_is_not_stated() -> None:
    parted = Config(denoiser_training=DenoiserTrainingConfig(sharded=True))
    assert public_configuration(parted) == public_configuration(Config())
