"""`python -m privacy audit` on folders: verdicts, exit codes, the two records, and what cannot be audited."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from privacy_scans import scan, scans, write

import privacy
from privacy.__main__ import main
from privacy.planted import DISGUISES, PER_DISGUISE
from privacy.policy import judge, policy_from_values
from privacy.records import collect

TRAIN, HOLDOUT = range(12), range(100, 111)
HONEST = range(200, 224)


def _cohort(root: Path) -> Path:
    """Write a cohort: 12 training patients, one with two visits; 11 held-out ones, of whom one is also in training."""
    write(root / "train" / "images", [*scans(TRAIN), scan(0, visit=1)], prefix="wardA")
    write(root / "holdout" / "images", [*scans(HOLDOUT), scan(3, visit=1)], prefix="wardB")
    for role, prefix, names in (
        ("train", "wardA", [f"Meyer{k}" for k in TRAIN] + ["Meyer0"]),
        ("holdout", "wardB", [f"Schulz{k}" for k in HOLDOUT] + ["Schulz999"]),
    ):
        rows = "".join(f"{prefix}_{k:03d}.nii.gz,{name}\n" for k, name in enumerate(names))
        (root / role / "subjects.csv").write_text("file,subject\n" + rows)
    return root


def _arguments(root: Path, out: str, synthetic: str = "synthetic", **options: object) -> list[str]:
    folders = [f"--{role}={root / role}" for role in ("train", "holdout")]
    extra = [f"--{key}={value}" for key, value in ({"policy": "research"} | options).items()]
    return ["audit", *folders, f"--synthetic={root / synthetic}", f"--out={root / out}", "--quiet", *extra]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run an honest audit and one with a copy slipped in, in a folder with a space and an umlaut in its name."""
    root = _cohort(tmp_path_factory.mktemp("Studie Zürich"))
    write(root / "synthetic", scans(HONEST), prefix="gen")
    write(root / "copied", [*scans(list(HONEST)[1:]), np.roll(scan(7), (1, -1, 0), (0, 1, 2))], prefix="gen")
    (root / "codes").write_text(
        f"{main(_arguments(root, 'clean'))} {main(_arguments(root, 'leak', 'copied'))}", encoding="utf-8"
    )
    return root


def _release(root: Path, out: str) -> dict[str, object]:
    return json.loads((root / out / "release" / "report.json").read_text(encoding="utf-8"))


def test_an_honest_set_passes_and_a_copy_fails(root: Path) -> None:
    assert (root / "codes").read_text() == "0 3"
    assert _release(root, "clean")["verdict"] == "PASS"
    leak = _release(root, "leak")
    assert leak["verdict"] == "FAIL"
    assert leak["measurements"]["identity_matches"] == 1  # type: ignore[index]


def test_the_steward_learns_the_source(root: Path) -> None:
    with (root / "leak" / "steward" / "samples.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    assert [row["file"] for row in rows if row["flag"] == "match"] == ["gen_023.nii.gz"]
    assert rows[0]["nearest_patient"] == "Meyer7"
    assert all(0 < float(row["p_value"]) <= 1 for row in rows)
    steward = json.loads((root / "leak" / "steward" / "report.json").read_text())
    assert steward["pairs"][0]["source_path"].endswith("wardA_007.nii.gz")
    assert steward["purged_holdout_patients"] == ["Schulz999"]
    assert "Meyer7" in (root / "leak" / "steward" / "report.md").read_text()
    assert len(list((root / "leak" / "steward" / "pairs").glob("*.png"))) == 4


def test_the_release_record_has_the_schema(root: Path) -> None:
    report = _release(root, "leak")
    assert list(report) == [
        "schema", "verdict", "reasons", "policy", "seed", "synthetic", "train", "holdout",
        "measurements", "power", "space", "versions", "citations",
    ]  # fmt: skip
    assert report["schema"] == "privacy-audit/1"
    assert report["train"] == {"n_scans": 13, "n_patients": 12}
    assert report["holdout"] == {"n_scans": 11, "n_patients": 11}
    expected = sorted(scan.sha256 for scan in collect("synthetic", root / "copied"))
    assert report["synthetic"] == {"n": 24, "sha256": expected}


@pytest.mark.parametrize("out", ["clean", "leak"])
def test_anyone_can_judge_the_release_record_again(root: Path, out: str) -> None:
    report = _release(root, out)
    stated = report["policy"]
    policy = policy_from_values(stated["name"], stated["thresholds"])  # type: ignore[index]
    assert policy.sha256 == stated["sha256"]  # type: ignore[index]
    assert judge(report["measurements"], policy) == (report["verdict"], report["reasons"])  # type: ignore[arg-type]


@pytest.mark.parametrize("out", ["clean", "leak"])
def test_the_release_record_names_nobody_and_no_file(root: Path, out: str) -> None:
    files = [path for path in (root / out / "release").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["report.json", "report.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    real = [*collect("train", root / "train"), *collect("holdout", root / "holdout")]
    secrets = {value for s in real for value in (s.patient, s.name, str(s.path), s.sha256, s.content)}
    secrets |= {"Meyer", "Schulz", "ward", "gen_", "Zürich", str(root)}
    assert [secret for secret in secrets if secret in text] == []


def test_the_report_speaks_of_evidence(root: Path) -> None:
    text = (root / "clean" / "release" / "report.md").read_text()
    assert "evidence" in text
    assert "anonymous" not in text
    assert f"It planted {len(DISGUISES) * PER_DISGUISE} copies" in text


def test_the_same_input_gives_the_same_bytes_whatever_names_order_and_duplicates(root: Path) -> None:
    renamed = root / "renamed"
    renamed.mkdir()
    for k, path in enumerate(sorted((root / "copied").iterdir(), reverse=True)):
        shutil.copy(path, renamed / f"{k:02d}.nii.gz")
    assert main(_arguments(root, "again", "renamed")) == 3
    for name in ("report.json", "report.md"):
        one, two = (root / out / "release" / name for out in ("leak", "again"))
        assert one.read_bytes() == two.read_bytes()
    shutil.copy(renamed / "00.nii.gz", renamed / "a copy of it.nii.gz")
    report = privacy.audit(root / "train", root / "holdout", renamed, policy="research")
    first, second = _release(root, "leak"), report.release
    assert second["measurements"] == first["measurements"]
    assert second["synthetic"]["n"] == 25
    assert report.exit_code == 3


def test_json_goes_to_stdout_and_one_file_is_inconclusive(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root / "one", scans([300]))
    assert main([*_arguments(root, "single", "one"), "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "INCONCLUSIVE"
    assert "With 1 distinct samples" in report["reasons"][0]


def test_a_holdout_of_five_is_inconclusive(root: Path) -> None:
    names = [f"P{k}" for k in range(5)]
    report = privacy.audit(
        root / "train", scans(range(100, 105)), scans(HONEST), holdout_patients=names, policy="research"
    )
    assert report.verdict == "INCONCLUSIVE"
    assert any("Only 5 held-out patients" in reason for reason in report.reasons)


@pytest.mark.slow
def test_other_spacings_are_resampled_and_the_copy_is_found(root: Path) -> None:
    from scipy import ndimage

    finer = [ndimage.zoom(volume, 1.25, order=1) for volume in [*scans(list(HONEST)[1:]), scan(7)]]
    write(root / "finer", finer, affine=np.diag([-0.8, 0.8, 0.8, 1.0]))
    report = privacy.audit(root / "train", root / "holdout", root / "finer", policy="research")
    assert report.verdict == "FAIL"
    assert [pair["nearest_patient"] for pair in report.steward["pairs"] if pair["flag"] == "match"] == ["Meyer7"]


def _missing(root: Path) -> list[str]:
    return _arguments(root, "x", "nowhere")


def _empty(root: Path) -> list[str]:
    (root / "empty").mkdir(exist_ok=True)
    return _arguments(root, "x", "empty")


def _damaged(root: Path) -> list[str]:
    path = write(root / "damaged", scans([300, 301]))[0]
    path.write_bytes(path.read_bytes()[:700])
    return _arguments(root, "x", "damaged")


def _other_field(root: Path) -> list[str]:
    write(root / "field", scans([300]), affine=np.diag([2.0, 2, 2, 1]))
    return _arguments(root, "x", "field")


def _same_folder(root: Path) -> list[str]:
    return [*_arguments(root, "x"), f"--holdout={root / 'train' / 'images'}"]


def _both_tables(root: Path) -> list[str]:
    table = root / "train" / "subjects.csv"
    return [*_arguments(root, "x"), f"--patients={table}", f"--train-patients={table}"]


def _wrong_table(root: Path) -> list[str]:
    return [*_arguments(root, "x"), f"--patients={root / 'train' / 'subjects.csv'}"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (_missing, 5, "does not exist"),
        (_empty, 5, "holds no NIfTI"),
        (_damaged, 5, "1 of 2 synthetic volumes cannot be used: case_000.nii.gz (unreadable"),
        (_other_field, 5, "a field of another size"),
        (_same_folder, 2, "train and holdout are the same folder"),
        (_both_tables, 2, "--patients is for both sets"),
        (_wrong_table, 2, "no row for 12 holdout volumes"),
        (lambda root: _arguments(root, "x", policy="lenient"), 2, "one of default, research, strict"),
        (lambda root: _arguments(root, "codes"), 2, "The reports need a folder"),
    ],
)
def test_what_cannot_be_audited_says_so_in_one_line(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path], list[str]],
    code: int,
    words: str,
) -> None:
    assert main(arguments(root)) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (root / "x").exists()


def test_a_wrong_option_ends_with_code_2() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["audit", "--train", "x"])
    assert stopped.value.code == 2


def test_the_module_runs_without_importing_torch_for_help() -> None:
    code = "import sys, privacy, privacy.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    shown = subprocess.run(
        [sys.executable, "-m", "privacy", "audit", "--help"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0
    assert "4 INCONCLUSIVE" in shown.stdout
