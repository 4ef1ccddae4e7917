"""The gate: who may make an approval, and everything that must be refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml
from releases import PASSING, Made, digest, make_audit, make_samples, phantom_image, read_table, write_table

from privacy.errors import UsageError
from synthmed.config import ExportConfig
from synthmed.errors import AuditInconclusive, InputError, ReleaseRefused
from synthmed.export import ReleaseApproval, approve, export
from synthmed.io import read_volume, write_volume
from synthmed.volume import Volume


def edit_report(made: Made, **changes: object) -> None:
    made.report.write_text(json.dumps(json.loads(made.report.read_text()) | changes))


def test_binds_every_byte_of_a_passing_set(made: Made) -> None:
    approval = approve(made.samples, made.report, "default")
    assert approval.verdict == "PASS"
    assert dict(approval.images) == {
        p.name.removesuffix(".nii.gz"): digest(p) for p in (made.samples / "images").iterdir()
    }
    assert dict(approval.labels) == {
        p.name.removesuffix(".nii.gz"): digest(p) for p in (made.samples / "labels").iterdir()
    }
    assert dict(approval.records) == {
        "samples.csv": digest(made.samples / "samples.csv"),
        "generation.json": digest(made.samples / "generation.json"),
        "report.json": digest(made.report),
        "report.md": digest(made.audit / "report.md"),
    }


def test_nobody_else_makes_an_approval(made: Made) -> None:
    approval = approve(made.samples, made.report, "default")
    fields = [getattr(approval, f.name) for f in dataclasses.fields(approval)]
    with pytest.raises(TypeError, match="approve alone"):
        ReleaseApproval(*fields, object())
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(approval, images={})
    with pytest.raises(dataclasses.FrozenInstanceError):
        approval.verdict = "PASS"  # type: ignore[misc]
    with pytest.raises(TypeError):
        approval.images["other"] = "0" * 64  # type: ignore[index]


def test_fail_is_refused_with_its_reason(made: Made) -> None:
    make_audit(made.audit, made.samples, verdict="FAIL", identity_matches=3)
    with pytest.raises(ReleaseRefused, match="3 of 200") as caught:
        approve(made.samples, made.report, "default")
    assert caught.value.exit_code == 3


def test_inconclusive_blocks_with_its_own_exit_code(made: Made) -> None:
    make_audit(made.audit, made.samples, verdict="INCONCLUSIVE", holdout_patients=3)
    with pytest.raises(AuditInconclusive, match="3 held-out patients") as caught:
        approve(made.samples, made.report, "default")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("verdict", "changed"),
    [
        ("FAIL", {"identity_matches": 3}),
        ("FAIL", {"identifying_headers": 1}),
        ("FAIL", {"linkability_risk_lower": 0.02}),
        ("INCONCLUSIVE", {"recall_lower": 0.5}),
    ],
)
def test_verdict_edited_to_pass_is_refused(made: Made, verdict: str, changed: dict[str, float]) -> None:
    make_audit(made.audit, made.samples, verdict="PASS", **changed)
    with pytest.raises(ReleaseRefused, match=f"edited.*found PASS; expected {verdict}"):
        approve(made.samples, made.report, "default")


def test_verdict_edited_to_fail_is_refused_too(made: Made) -> None:
    edit_report(made, verdict="FAIL")
    with pytest.raises(ReleaseRefused, match="edited"):
        approve(made.samples, made.report, "default")


@pytest.mark.parametrize("key", sorted(set(PASSING) - {"linkability_risk", "inference_risk"}))
def test_missing_measurement_is_refused(made: Made, key: str) -> None:
    measurements = json.loads(made.report.read_text())["measurements"]
    del measurements[key]
    edit_report(made, measurements=measurements)
    with pytest.raises(ReleaseRefused, match=key):
        approve(made.samples, made.report, "default")


def change_image(samples: Path) -> None:
    file = samples / "images" / "synthetic_0002.nii.gz"
    volume = read_volume(file)
    write_volume(file, Volume(volume.array + 1, volume.affine))


def change_image_and_table(samples: Path) -> None:
    change_image(samples)
    write_table(samples, read_table(samples))


def add_image(samples: Path) -> None:
    for kind in ("images", "labels"):
        shutil.copy(samples / kind / "synthetic_0000.nii.gz", samples / kind / "synthetic_0099.nii.gz")


def add_image_and_row(samples: Path) -> None:
    add_image(samples)
    write_table(samples, [*read_table(samples), {"name": "synthetic_0099", "seed": 1, "condition": "{}"}])


def remove_image(samples: Path) -> None:
    (samples / "images" / "synthetic_0001.nii.gz").unlink()


def remove_case(samples: Path) -> None:
    for kind in ("images", "labels"):
        (samples / kind / "synthetic_0001.nii.gz").unlink()
    write_table(samples, [row for row in read_table(samples) if row["name"] != "synthetic_0001"])


def change_label(samples: Path) -> None:
    file = samples / "labels" / "synthetic_0002.nii.gz"
    write_volume(file, Volume(1 - read_volume(file).array.clip(0, 1), read_volume(file).affine), dtype="uint8")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (change_image, "is not the file that samples.csv lists"),
        (change_image_and_table, "about other files.*1 of them not audited, such as synthetic_0002"),
        (add_image, "synthetic_0099.nii.gz unlisted"),
        (add_image_and_row, "about other files.*found 7 images"),
        (remove_image, "synthetic_0001.nii.gz missing"),
        (remove_case, "about other files.*found 5 images"),
        (change_label, "labels/synthetic_0002.nii.gz is not the file that samples.csv lists"),
    ],
)
def test_any_file_that_differs_is_refused(made: Made, tamper, message: str) -> None:  # type: ignore[no-untyped-def]
    tamper(made.samples)
    with pytest.raises((ReleaseRefused, InputError), match=message) as caught:
        approve(made.samples, made.report, "default")
    assert "\n" not in str(caught.value)


def test_swapped_images_are_refused(made: Made) -> None:
    a, b = (made.samples / "images" / f"synthetic_000{i}.nii.gz" for i in (0, 1))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    with pytest.raises(ReleaseRefused, match=r"is not the file that samples\.csv lists"):
        approve(made.samples, made.report, "default")


def test_report_of_another_set_is_refused(made: Made, tmp_path: Path) -> None:
    other = make_samples(tmp_path / "other", n=3)
    with pytest.raises(ReleaseRefused, match="about other files"):
        approve(other, made.report, "default")


def own_policy(file: Path, **thresholds: float) -> Path:
    import privacy

    content = yaml.safe_load((Path(privacy.__file__).parent / "policies" / "default.yaml").read_text())
    content["name"] = "own"
    for key, value in thresholds.items():
        content["thresholds"][key]["value"] = value
    file.write_text(yaml.safe_dump(content))
    return file


def test_policy_edited_afterwards_is_refused(made: Made, tmp_path: Path) -> None:
    policy = own_policy(tmp_path / "own.yaml")
    make_audit(made.audit, made.samples, policy)
    assert approve(made.samples, made.report, policy).policy["name"] == "own"
    own_policy(policy, max_copy_rate_upper=0.08)
    with pytest.raises(ReleaseRefused, match="policy is not the one"):
        approve(made.samples, made.report, policy)
    with pytest.raises(ReleaseRefused, match="policy is not the one"):
        approve(made.samples, made.report, "default")


def test_thresholds_edited_in_the_report_are_refused(made: Made) -> None:
    policy = json.loads(made.report.read_text())["policy"]
    policy["thresholds"]["max_copy_rate_upper"] = 0.4
    edit_report(made, policy=policy)
    with pytest.raises(ReleaseRefused, match="policy is not the one"):
        approve(made.samples, made.report, "default")


def test_unknown_policy_is_a_usage_error(made: Made) -> None:
    with pytest.raises(UsageError, match="no-such-policy"):
        approve(made.samples, made.report, "no-such-policy")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"schema": "privacy-audit/2"}', '{"schema": "privacy-audit/2", "policy": {}}', "\xff\xfe"],
)
def test_unusable_report_is_named(made: Made, text: str) -> None:
    made.report.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"report\.json"):
        approve(made.samples, made.report, "default")


def test_a_report_of_the_schema_before_is_named(made: Made) -> None:
    edit_report(made, schema="privacy-audit/1")
    with pytest.raises(InputError, match=r"report\.json.*not a report of schema privacy-audit/2"):
        approve(made.samples, made.report, "default")


@pytest.mark.parametrize("name", ["report.json", "report.md"])
def test_missing_report_is_named(made: Made, name: str) -> None:
    (made.audit / name).unlink()
    with pytest.raises(InputError, match=name):
        approve(made.samples, made.report, "default")


@pytest.mark.parametrize(
    "file",
    [
        "generate/images/synthetic_0003.nii.gz",
        "generate/labels/synthetic_0003.nii.gz",
        "generate/samples.csv",
        "generate/generation.json",
        "audit/report.json",
        "audit/report.md",
    ],
)
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_export_refuses_what_changed_after_the_approval(made: Made, tmp_path: Path, file: str, how: str) -> None:
    approval = approve(made.samples, made.report, "default")
    if how == "changed":
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes() + b"\n")
    else:
        (tmp_path / file).unlink()
    out = tmp_path / "out" / "release"
    with pytest.raises(ReleaseRefused, match=Path(file).name):
        export(made.samples, approval, out, config=ExportConfig(), audit_dir=made.audit)
    assert list(tmp_path.glob("out/*")) == []


def test_export_refuses_an_approval_of_another_set(made: Made, tmp_path: Path) -> None:
    other = make_samples(tmp_path / "other", n=3)
    approval = approve(other, make_audit(tmp_path / "other_audit", other) / "report.json", "default")
    with pytest.raises(ReleaseRefused):
        export(made.samples, approval, tmp_path / "release", config=ExportConfig(), audit_dir=made.audit)
    assert not (tmp_path / "release").exists()


def test_a_copied_approval_still_binds(made: Made, tmp_path: Path) -> None:
    approval = copy.copy(approve(made.samples, made.report, "default"))
    file = made.samples / "images" / "synthetic_0000.nii.gz"
    write_volume(file, Volume(phantom_image(5)[None], read_volume(file).affine))
    with pytest.raises(ReleaseRefused, match="changed after it was approved"):
        export(made.samples, approval, tmp_path / "release", config=ExportConfig(), audit_dir=made.audit)
