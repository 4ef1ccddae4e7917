"""The whole release: deterministic, silent about its sources, refused whole."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from releases import Made, make_audit, make_samples

from synthmed.config import ExportConfig
from synthmed.errors import ConfigError, ReleaseRefused
from synthmed.export import EXPORTERS, approve, export, verify
from synthmed.export.seal import SEAL


def tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_layout(made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "new" / "release")
    assert {p.relative_to(release).as_posix() for p in release.rglob("*") if "Tr" not in p.parent.name} == {
        "README.md",
        "LICENSE",
        "DATASHEET.md",
        "MODEL_CARD.md",
        "croissant.json",
        "cases.csv",
        "SHA256SUMS",
        "SHA256SUMS.sig",
        "signer.pub",
        "provenance.dsse.json",
        "audit",
        "audit/report.json",
        "audit/report.md",
        "audit/report.html",
        "audit/gate.json",
        "nifti",
        "nifti/dataset.json",
        "nifti/datalist.json",
        "nifti/imagesTr",
        "nifti/labelsTr",
    }
    assert [p.name for p in release.parent.iterdir()] == ["release"]
    assert release.stat().st_mode & 0o777 == 0o755


def test_checksums_pass_the_ordinary_tool(made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "release")
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=release, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(tree(release)) - len(SEAL) - 1
    (release / "cases.csv").write_text("changed")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=release, capture_output=True).returncode == 1


def test_same_input_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    trees = []
    for place in ("a", "b c é"):
        samples = make_samples(tmp_path / place / "generate", labels=(1, 17))
        made = Made(samples, make_audit(tmp_path / place / "audit", samples))
        trees.append(tree(made.release(tmp_path / place / "release")))
    assert trees[0] == trees[1]


def test_no_byte_names_a_source_or_a_path(tmp_path: Path) -> None:
    root = tmp_path / "Mustermann_Erika"
    samples = make_samples(root / "generate")
    made = Made(samples, make_audit(root / "audit", samples))
    release = made.release(root / "release")
    # make_samples puts a path of the generating machine into generation.json, which must not come through.
    assert "/home/eve" in (samples / "generation.json").read_text()
    secrets = [b"mustermann", b"/home/", b"secret.log", str(tmp_path).lower().encode()]
    for file in release.rglob("*"):
        if file.is_file():
            raw = file.read_bytes()
            content = raw + (gzip.decompress(raw) if file.suffix == ".gz" else b"")
            assert [s for s in secrets if s in content.lower() or s in file.name.lower().encode()] == []


@pytest.mark.parametrize("approval", [None, True, "PASS", {"verdict": "PASS"}])
def test_nothing_is_written_without_an_approval(made: Made, tmp_path: Path, approval: object) -> None:
    with pytest.raises(ReleaseRefused, match="without an approval"):
        export(made.samples, approval, tmp_path / "o" / "r", config=ExportConfig(), audit_dir=made.audit)  # type: ignore[arg-type]
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_an_existing_output_is_refused_and_kept(made: Made, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "release"
    if kind == "directory":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists already"):
        made.release(out)
    assert out.is_symlink() if kind == "dangling link" else out.exists()


def test_an_unknown_format_is_named(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(EXPORTERS, "nifti")
    with pytest.raises(ConfigError, match="no export format nifti"):
        made.release(tmp_path / "release")


def test_a_volume_without_the_mark_is_refused(tmp_path: Path) -> None:
    from releases import oblique_affine, phantom_image, read_table, write_table

    from synthmed.io import write_volume
    from synthmed.volume import Volume

    samples = make_samples(tmp_path / "generate")
    file = samples / "images" / "synthetic_0004.nii.gz"
    write_volume(file, Volume(phantom_image(4)[None], oblique_affine()), description="")
    write_table(samples, read_table(samples))
    made = Made(samples, make_audit(tmp_path / "audit", samples))
    with pytest.raises(ReleaseRefused, match=r"synthetic_0004_0000\.nii\.gz: descrip is not SYNTHETIC"):
        made.release(tmp_path / "out" / "release")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_export_left_is_cleaned_up(made: Made, tmp_path: Path) -> None:
    stale, other = tmp_path / "out" / ".release.partial-abc", tmp_path / "out" / ".other.partial-abc"
    for folder in (stale, other):
        (folder / "nifti").mkdir(parents=True)
        (folder / "nifti" / "x.nii.gz").write_bytes(b"half")
    made.release(tmp_path / "out" / "release")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".other.partial-abc", "release"]


def test_gate_records_what_was_decided(made: Made, tmp_path: Path) -> None:
    gate = json.loads((made.release(tmp_path / "release") / "audit" / "gate.json").read_text())
    approval = approve(made.samples, made.report, "default")
    assert gate["verdict"] == "PASS"
    assert gate["policy"] == json.loads(made.report.read_text())["policy"]
    assert gate["approved"]["images"] == dict(approval.images)
    assert gate["relabelled"] is False


def test_names_with_spaces_and_letters_beyond_ascii(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "Proben für später")
    made = Made(samples, make_audit(tmp_path / "Prüfung 1", samples))
    release = made.release(tmp_path / "Frei gabe é", title="Köpfe – synthetisch")
    assert verify(release) == []


def test_rooms_import_without_torch() -> None:
    code = "import sys, synthmed.export; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
