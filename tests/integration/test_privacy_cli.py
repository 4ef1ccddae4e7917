"""`python -m privacy audit` on folders: verdicts, exit codes, what does not change them, and the two records."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from privacy_audits import arguments, clean_once, quick
from privacy_scans import SHAPE, scan, scans, write

import privacy
from privacy import planted
from privacy.__main__ import main
from privacy.planted import DISGUISES
from privacy.policy import judge, policy_from_values
from privacy.records import collect

TRAIN, HOLDOUT = range(12), range(100, 111)
HONEST = range(200, 224)
TRAIN_IDS = ["O'Neil-42", "Åström, Märta", "../Petrov|7", "0815 4711", *(f"Meyer{k}" for k in range(4, 12))]
HOLDOUT_IDS = [f"Schulz{k}" for k in HOLDOUT]


def _again(volume: np.ndarray, seed: int) -> np.ndarray:
    """Return a scan that was exported again, a little changed."""
    return (1.1 * volume + 0.02 * np.random.default_rng(seed).standard_normal(SHAPE)).astype(np.float32)


def _write_cohort(root: Path, prefixes: tuple[str, str], ids: tuple[list[str], list[str]], backwards: bool) -> None:
    """Write 12 training patients, one with two visits and one under two names; 11 held out, and one of training."""
    sets = (
        [*scans(TRAIN), scan(0, visit=1), _again(scan(5), 0)],
        [*scans(HOLDOUT), scan(3, visit=1)],
    )
    for role, prefix, owners, volumes in zip(("train", "holdout"), prefixes, ids, sets, strict=True):
        numbers = range(len(volumes))[:: -1 if backwards else 1]
        write(root / role / "images", [volumes[k] for k in numbers], prefix=prefix)
        with (root / role / "subjects.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(
                [("file", "subject"), *((f"{prefix}_{n:03d}.nii.gz", owners[k]) for n, k in enumerate(numbers))]
            )


def _cohort(root: Path) -> Path:
    ids = ([*TRAIN_IDS, TRAIN_IDS[0], "Meyer5 geb. Vogt"], [*HOLDOUT_IDS, "Schulz999"])
    _write_cohort(root, ("wardA", "wardB"), ids, backwards=False)
    (root / "train" / "imagesTs").mkdir()
    (root / "holdout" / "images" / "Anmerkungen.txt").write_text("Schulz101 kommt wieder")
    return root


def _known(root: Path, out: str) -> Path:
    """Let an audit start from the embedding that the first one learned."""
    shutil.copytree(root / "clean" / "steward" / "cache", root / out / "steward" / "cache")
    return root / out


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with quick(), clean_once():
        yield


def _leaking(root: Path) -> None:
    """Write 22 honest samples and copies of two patients, one of them with a patient's name in header and file name."""
    copies = [np.roll(scan(7), (1, -1, 0), (0, 1, 2)), np.flip(scan(5), 0)]
    write(root / "copied", [*scans(list(HONEST)[2:]), *copies], prefix="gen")
    image = nib.load(root / "copied" / "gen_003.nii.gz")
    image.header["descrip"] = b"after Meyer9"  # type: ignore[index]
    image.set_sform(np.diag([1.0, 1, 1, 1]))  # type: ignore[attr-defined]
    nib.save(image, root / "copied" / "gen_003_Schulz104.nii.gz")
    (root / "copied" / "gen_003.nii.gz").unlink()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run an honest audit and one with copies slipped in, in a folder with a space and an umlaut in its name."""
    root = _cohort(tmp_path_factory.mktemp("Studie Zürich"))
    write(root / "synthetic", scans(HONEST), prefix="gen")
    _leaking(root)
    codes = [main(arguments(root, "clean"))]
    _known(root, "leak")
    with quick(planted=1):
        codes.append(main(arguments(root, "leak", "copied")))
    (root / "codes").write_text(" ".join(map(str, codes)), encoding="utf-8")
    return root


def _release(root: Path, out: str) -> dict[str, object]:
    return json.loads((root / out / "release" / "report.json").read_text(encoding="utf-8"))


def _steward(root: Path, out: str) -> dict[str, object]:
    return json.loads((root / out / "steward" / "report.json").read_text(encoding="utf-8"))


def test_an_honest_set_passes_and_a_copy_fails(root: Path) -> None:
    assert (root / "codes").read_text() == "0 3"
    assert _release(root, "clean")["verdict"] == "PASS"
    leak = _release(root, "leak")
    assert leak["verdict"] == "FAIL"
    assert leak["measurements"]["identity_matches"] == 2  # type: ignore[index]


def test_the_steward_learns_the_source(root: Path) -> None:
    with (root / "leak" / "steward" / "samples.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    found = {row["file"]: row["nearest_patient"] for row in rows if row["flag"] == "match"}
    assert found.pop("gen_023.nii.gz") in ("Meyer5", "Meyer5 geb. Vogt")
    assert found == {"gen_022.nii.gz": "Meyer7"}
    assert all(0 < float(row["p_value"]) <= 1 for row in rows)
    sources = {pair["file"]: pair["source_path"] for pair in _steward(root, "leak")["pairs"]}  # type: ignore[attr-defined]
    assert sources["gen_022.nii.gz"].endswith("wardA_007.nii.gz")
    assert "Meyer7" in (root / "leak" / "steward" / "report.md").read_text(encoding="utf-8")
    assert len(list((root / "leak" / "steward" / "pairs").glob("*.png"))) >= 4


@pytest.mark.parametrize("out", ["clean", "leak"])
def test_one_person_under_two_names_is_merged_or_purged_and_named_to_the_steward_alone(root: Path, out: str) -> None:
    steward, release = _steward(root, out), _release(root, out)
    assert steward["purged_holdout_patients"] == ["Schulz999"]
    assert steward["merged_patients"] == [sorted([TRAIN_IDS[3], "Schulz999"]), ["Meyer5", "Meyer5 geb. Vogt"]]
    assert release["train"] == {"n_scans": 14, "n_patients": 12}
    assert release["holdout"] == {"n_scans": 11, "n_patients": 11}
    measured = release["measurements"]
    assert (measured["purged_holdout_scans"], measured["merged_patients"]) == (1, 2)  # type: ignore[index]


def test_the_release_record_has_the_schema(root: Path) -> None:
    report = _release(root, "leak")
    assert list(report) == [
        "schema", "verdict", "reasons", "policy", "seed", "synthetic", "train", "holdout",
        "measurements", "scores", "power", "space", "notes", "metadata", "versions", "citations",
    ]  # fmt: skip
    assert report["schema"] == "privacy-audit/2"
    expected = sorted(scan.sha256 for scan in collect("synthetic", root / "copied"))
    assert report["synthetic"] == {"n": 24, "sha256": expected}


@pytest.mark.parametrize("out", ["clean", "leak"])
def test_the_release_record_counts_the_scores_that_its_figures_come_from(root: Path, out: str) -> None:
    report = _release(root, out)
    edges, counts = (report["scores"][key] for key in ("edges", "counts"))  # type: ignore[index]
    measured = report["measurements"]
    assert sum(counts["samples_to_training"]) == sum(counts["samples_to_holdout"]) == measured["samples"]  # type: ignore[index]
    assert sum(counts["holdout_to_training"]) == measured["null_scans"]  # type: ignore[index]
    assert sum(counts["training_to_training"]) == report["train"]["n_scans"]  # type: ignore[index]
    for name, key in (("samples_to_training", "largest_score"), ("holdout_to_training", "largest_null_score")):
        last = max(k for k, count in enumerate(counts[name]) if count)
        assert edges[last] <= measured[key] <= edges[last + 1]  # type: ignore[index]
    surely = sum(count for low, count in zip(edges, counts["samples_to_training"], strict=False) if low >= 1)
    assert surely <= measured["identity_matches"]  # type: ignore[index]


@pytest.mark.parametrize("out", ["clean", "leak"])
def test_anyone_can_judge_the_release_record_again(root: Path, out: str) -> None:
    report = _release(root, out)
    stated = report["policy"]
    policy = policy_from_values(stated["name"], stated["thresholds"])  # type: ignore[index]
    assert policy.sha256 == stated["sha256"]  # type: ignore[index]
    assert judge(report["measurements"], policy) == (report["verdict"], report["reasons"])  # type: ignore[arg-type]


def _secrets(root: Path) -> set[str]:
    """List every name, path and digest of the cohort, and the words that they are made of."""
    real = [*collect("train", root / "train"), *collect("holdout", root / "holdout")]
    secrets = {value for s in real for value in (s.patient, s.name, str(s.path), s.sha256, s.content)}
    secrets |= {Path(s.name).name.split(".")[0] for s in real}
    secrets |= {"Meyer", "Schulz", "Neil", "Åström", "Märta", "Petrov", "4711", "Vogt", "Anmerkungen", "ward"}
    return secrets | {"gen_", "Zürich", "images/case", str(root), str(root.parent), Path.home().as_posix() + "/"}


def _spellings(secret: str) -> set[bytes]:
    """Return a text as it may stand in a file: plain, escaped, in other encodings."""
    texts = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {text.encode(code, "ignore") for text in texts for code in ("utf-8", "latin-1", "utf-16-le")}


@pytest.mark.parametrize("out", ["clean", "leak"])
def test_the_release_record_names_nobody_and_no_file(root: Path, out: str) -> None:
    files = [path for path in (root / out / "release").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["report.json", "report.md"]
    assert len(list((root / out / "release").rglob("*"))) == 2
    content = b"\n".join(path.read_bytes() for path in files)
    assert [s for s in _secrets(root) if any(spelt in content for spelt in _spellings(s))] == []


def test_the_search_for_names_would_find_them(root: Path) -> None:
    """The steward's record holds what the release's must not; the records do speak of notes and findings."""
    content = b"\n".join(p.read_bytes() for p in (root / "leak" / "steward").glob("report.*"))
    expected = {TRAIN_IDS[3], "Meyer5 geb. Vogt", "Schulz999", "gen_003_Schulz104.nii.gz", str(root / "train")}
    assert all(any(spelt in content for spelt in _spellings(secret)) for secret in expected)
    release = _release(root, "leak")
    assert len(release["notes"]) >= 3  # type: ignore[arg-type]
    identifying = {row["where"] for row in release["metadata"] if row["severity"] == "identifying"}  # type: ignore[attr-defined]
    assert identifying == {"descrip", "file name"}
    assert {item["sample"] for item in _steward(root, "leak")["metadata"]} == {"gen_003_Schulz104.nii.gz"}  # type: ignore[attr-defined]


def test_the_report_speaks_of_evidence(root: Path) -> None:
    text = (root / "clean" / "release" / "report.md").read_text()
    assert "evidence" in text
    assert "anonymous" not in text
    assert f"It planted {len(DISGUISES) * planted.PER_DISGUISE} copies" in text


def _reports(root: Path, out: str) -> list[bytes]:
    return [(root / out / "release" / name).read_bytes() for name in ("report.json", "report.md")]


@pytest.mark.slow
def test_names_and_order_change_no_byte_even_where_the_sets_swap_their_names(root: Path) -> None:
    other = root / "swapped"
    strangers = [f"X{k}" for k in range(12)]
    ids = ([*strangers, strangers[0], "Y"], [*TRAIN_IDS[:11], "Z"])
    _write_cohort(other, ("wardB", "wardA"), ids, backwards=True)
    (other / "train" / "imagesTs").mkdir()
    (other / "holdout" / "images" / "notes.txt").write_text("")
    (other / "synthetic").mkdir()
    for k, path in enumerate(sorted((root / "synthetic").iterdir(), reverse=True)):
        shutil.copy(path, other / "synthetic" / f"{k:02d}.nii.gz")
    _known(root, "swapped/out")
    assert main(arguments(other, "out")) == 0
    assert _reports(other, "out") == _reports(root, "clean")


@pytest.mark.slow
def test_duplicates_of_a_sample_change_no_figure(root: Path) -> None:
    shutil.copytree(root / "copied", root / "twice")
    for k in (5, 22):
        shutil.copy(root / "twice" / f"gen_{k:03d}.nii.gz", root / "twice" / f"gen_{k + 100}.nii.gz")
    out = _known(root, "again")
    with quick(planted=1):
        report = privacy.audit(root / "train", root / "holdout", root / "twice", policy="research", out=out)
    first, second = _release(root, "leak"), report.release
    assert second["measurements"] == first["measurements"]
    assert (second["verdict"], second["reasons"]) == (first["verdict"], first["reasons"])
    assert second["synthetic"]["n"] == 26
    matched = {row["file"] for row in report.samples if row["flag"] == "match"}
    assert matched == {"gen_022.nii.gz", "gen_023.nii.gz", "gen_122.nii.gz"}


@pytest.mark.slow
def test_a_second_audit_reads_the_embedding_and_gives_the_same_report(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _reports(root, "clean")
    kept = list((root / "clean" / "steward" / "cache").iterdir())
    assert [path.suffix for path in kept] == [".safetensors"]

    def learn(*arguments: object) -> None:
        raise AssertionError("the embedding is learned again")

    monkeypatch.setattr("privacy.embedding.learn", learn)
    assert main(arguments(root, "clean")) == 0
    assert _reports(root, "clean") == before
    assert list((root / "clean" / "steward" / "cache").iterdir()) == kept


def test_json_goes_to_stdout_and_one_file_is_inconclusive(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root / "one", scans([300]))
    _known(root, "single")
    with quick(planted=1):
        assert main([*arguments(root, "single", "one"), "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "INCONCLUSIVE"
    assert any("With 1 distinct sample," in reason for reason in report["reasons"])


@pytest.mark.slow
def test_a_holdout_of_five_is_inconclusive() -> None:
    names = [f"P{k}" for k in range(5)]
    with quick(planted=1):
        report = privacy.audit(
            scans(TRAIN), scans(range(100, 105)), scans(HONEST), holdout_patients=names, policy="research"
        )
    assert report.verdict == "INCONCLUSIVE"
    assert any("Only 5 held-out patients" in reason for reason in report.reasons)


def test_an_interrupted_audit_leaves_no_release_record(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "clean", root / "killed")
    write(root / "one_more", scans(range(300, 304)), prefix="gen")
    assert (root / "killed" / "release" / "report.json").exists()

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("privacy.writing.draw_pair", interrupt)
    with quick(planted=1):
        assert main(arguments(root, "killed", "one_more")) == 130
    assert "no release record" in capsys.readouterr().err
    assert list((root / "killed" / "release").iterdir()) == []


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
