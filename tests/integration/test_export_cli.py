"""`synthmed export`, `verify` and `keygen` as their user meets them, on a run whose samples and audit are given."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
import yaml
from releases import Made, make_audit, make_samples

from synthmed import cli, pipeline
from synthmed.export.signing import fingerprint, load_public_key, make_key, public_path
from synthmed.stages import Run, Stage


class Command:
    """The command line in this process; keeps what it wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["synthmed", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        self.out, self.err = self.capsys.readouterr()
        return int(end.value.code or 0)  # type: ignore[arg-type]


@pytest.fixture
def synthmed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def config(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose stages before the export only copy what `made` holds."""

    def generate(run: Run, out: Path, progress: bool) -> None:
        shutil.copytree(made.samples, out, dirs_exist_ok=True)

    def audit(run: Run, out: Path, progress: bool) -> None:
        shutil.copytree(made.audit, out / "release")

    export = replace(pipeline.STAGES[-1], inputs=("generate", "audit"))
    stages = (Stage("generate", ("sampling",), (), generate), Stage("audit", ("audit",), ("generate",), audit), export)
    monkeypatch.setattr(pipeline, "STAGES", stages)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"name": "r"}))
    return file


RELEASE = Path("runs/r/export/release")


def test_formats_can_change_and_nothing_else_is_done_again(synthmed: Command, config: Path) -> None:
    assert synthmed("export", config) == 0
    assert f"Check it: synthmed verify {RELEASE}" in synthmed.out
    assert not (RELEASE / "dicom").exists()
    options = ["--format", "nifti", "--format", "dicom", "--enhanced", "--compression", "rle"]
    assert synthmed("export", "runs/r", *options) == 0
    assert "generate: done before" in synthmed.err
    assert "export.formats changed" in synthmed.err or "export.compression changed" in synthmed.err
    files = sorted(RELEASE.glob("dicom/*/*/MR-*/*.dcm"))
    assert len(files) == 6, "one multi-frame file a series"
    assert pydicom.dcmread(files[0]).file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    assert synthmed("verify", RELEASE) == 0
    assert synthmed("export", "runs/r") == 0
    assert "export: done before, nothing has changed" in synthmed.err
    assert synthmed("export", "runs/r", "--classic", "--compression", "none") == 0
    assert len(sorted(RELEASE.glob("dicom/*/*/MR-*/*.dcm"))) > 6
    assert sorted(p.name for p in Path("runs/r/superseded").iterdir()) != []


def test_formats_without_dicom_forget_what_was_for_dicom(synthmed: Command, config: Path) -> None:
    assert synthmed("export", config, "--format", "dicom", "--enhanced", "--compression", "rle") == 0
    assert synthmed("export", "runs/r", "--format", "nifti", "--format", "dicom") == 0
    kept = yaml.safe_load(Path("runs/r/config.yaml").read_text())["export"]
    assert (kept["enhanced"], kept["compression"]) == (True, "rle")
    assert synthmed("export", "runs/r", "--format", "nifti") == 0, synthmed.err
    kept = yaml.safe_load(Path("runs/r/config.yaml").read_text())["export"]
    assert (kept["formats"], kept["enhanced"], kept["compression"]) == (["nifti"], False, "none")


def test_a_key_is_remembered_until_it_is_taken_back(synthmed: Command, config: Path, tmp_path: Path) -> None:
    public = make_key(tmp_path / "k.pem")
    assert synthmed("export", config, "--key", tmp_path / "k.pem") == 0
    assert synthmed("export", "runs/r", "--format", "bids") == 0
    assert synthmed("verify", RELEASE, "--key", public) == 0
    assert synthmed("export", "runs/r", "--set", "export.key=null") == 0
    assert synthmed("verify", RELEASE, "--key", public) == 8


def test_a_chosen_key_signs_and_another_key_signs_anew(synthmed: Command, config: Path, tmp_path: Path) -> None:
    keys = [tmp_path / "a key: #1 é.pem", tmp_path / "other"]
    for key in keys:
        make_key(key)
        assert synthmed("export", config, "--key", key.name) == 0
        assert yaml.safe_load(Path("runs/r/config.yaml").read_text())["export"]["key"] == str(key)
        public = public_path(key)
        assert synthmed("verify", RELEASE, "--key", public) == 0
        assert fingerprint(load_public_key(public)) in synthmed.out
        assert "which is the one in" in synthmed.out
    assert synthmed("verify", RELEASE, "--key", public_path(keys[0])) == 8
    assert "signer.pub: signed by another key" in synthmed.out


def test_a_key_replaced_under_the_same_name_signs_anew(synthmed: Command, config: Path, tmp_path: Path) -> None:
    public = make_key(tmp_path / "k.pem")
    assert synthmed("export", config, "--key", tmp_path / "k.pem") == 0
    (tmp_path / "k.pem").unlink()
    public.unlink()
    make_key(tmp_path / "k.pem")
    assert synthmed("export", "runs/r") == 0
    assert synthmed("verify", RELEASE, "--key", public) == 0


def test_the_success_line_says_what_the_signature_is_worth(synthmed: Command, config: Path) -> None:
    assert synthmed("export", config) == 0
    assert synthmed("verify", RELEASE) == 0
    line = synthmed.out.splitlines()[-1]
    assert fingerprint(load_public_key(RELEASE / "signer.pub")) in line
    assert "only if you know this key" in line


def test_the_default_key_is_announced_once(
    synthmed: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert synthmed("export", config) == 0
    [line] = [line for line in synthmed.err.splitlines() if "signing key was made" in line]
    assert str(tmp_path / "home" / "synthmed" / "signing-key.pem") in line
    assert synthmed("export", "runs/r") == 0
    assert "export: done before" in synthmed.err
    assert synthmed("export", "runs/r", "--format", "bids") == 0
    assert "signing key was made" not in synthmed.err


def test_a_new_default_key_signs_anew(
    synthmed: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signers = []
    for home in ("former", "new"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / home))
        assert synthmed("keygen") == 0
        assert synthmed("export", config) == 0
        assert "export: finished" in synthmed.err
        signers.append(fingerprint(load_public_key(tmp_path / home / "synthmed" / "signing-key.pub")))
        assert f"signed by the key with SHA-256 {signers[-1]}" in synthmed.out
        assert fingerprint(load_public_key(RELEASE / "signer.pub")) == signers[-1]
    [kept] = Path("runs/r/superseded").iterdir()
    assert fingerprint(load_public_key(kept / "release" / "signer.pub")) == signers[0]
    assert synthmed("export", "runs/r") == 0
    assert "export: done before" in synthmed.err


def test_where_there_is_no_default_key_a_finished_release_stays_as_it_is(
    synthmed: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert synthmed("export", config) == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert synthmed("export", "runs/r") == 0
    assert "export: done before" in synthmed.err
    assert not (tmp_path / "elsewhere").exists()
    for expected in ("signing key was made", "export: done before"):
        assert synthmed("export", "runs/r", "--set", "export.title=Another") == 0
        assert expected in synthmed.err


def unreadable_key(tmp_path: Path) -> list[str]:
    make_key(tmp_path / "k.pem")
    (tmp_path / "k.pem").chmod(0o644)
    return ["--key", str(tmp_path / "k.pem")]


def missing_key(tmp_path: Path) -> list[str]:
    return ["--key", str(tmp_path / "gone.pem")]


def public_key(tmp_path: Path) -> list[str]:
    return ["--key", str(make_key(tmp_path / "k.pem"))]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "nifti", "--format", "dcm"], ["no format dcm for --format; expected nifti, dicom or bids"]),
        (["--compression", "zip", "--format", "dicom"], ["export.compression", "zip", "'rle'"]),
        (["--enhanced"], ["export.enhanced is for the format dicom", "or with --classic"]),
        (
            ["--format", "bids", "--enhanced", "--compression", "rle"],
            ["export.enhanced and export.compression are for the format dicom", "--classic --compression none"],
        ),
        (["--format", "nifti", "--set", "export.compression=rle"], ["or with --compression none"]),
        (["--format", "dicom", "--set", "cohort.modality=PT"], ["PET is released as NIfTI alone"]),
        (["--format", "bids", "--set", "cohort.modality=CT"], ["bids is for MR alone"]),
        (unreadable_key, ["mode 0644", "chmod 600"]),
        (missing_key, ["gone.pem", "synthmed keygen"]),
        (public_key, ["k.pub is a public key", "k.pem"]),
        (["--key", "~nobody-of-this-name/k.pem"], ["no home directory for ~nobody-of-this-name/k.pem"]),
    ],
)
def test_what_cannot_be_released_is_said_before_anything_runs(
    synthmed: Command,
    config: Path,
    tmp_path: Path,
    options: list[str] | Callable[[Path], list[str]],
    words: list[str],
) -> None:
    asked = options(tmp_path) if callable(options) else options
    assert synthmed("export", config, *asked) == 2
    assert len(synthmed.err.splitlines()) == 1
    assert all(word in synthmed.err for word in words), synthmed.err
    assert not Path("runs").exists()


def test_pet_that_only_the_samples_tell_of(synthmed: Command, config: Path, made: Made) -> None:
    shutil.rmtree(made.samples)
    shutil.rmtree(made.audit)
    make_audit(made.audit, make_samples(made.samples, modality="PT"))
    assert synthmed("export", config, "--format", "dicom") == 2
    assert "PET is released as NIfTI alone" in synthmed.err
    assert not RELEASE.exists()
    assert synthmed("export", "runs/r", "--format", "nifti") == 0
    assert synthmed("verify", RELEASE) == 0


@pytest.mark.parametrize(
    ("verdict", "measured", "code", "words"),
    [
        ("INCONCLUSIVE", {"train_patients": 3}, 4, ["INCONCLUSIVE", "blocks the release"]),
        ("FAIL", {"identifying_headers": 2}, 3, ["FAIL", "could identify a patient"]),
    ],
)
def test_a_verdict_that_is_no_pass_is_one_line_with_the_evidence(
    synthmed: Command, config: Path, made: Made, verdict: str, measured: dict[str, int], code: int, words: list[str]
) -> None:
    make_audit(made.audit, made.samples, verdict=verdict, **measured)
    assert synthmed("export", config) == code
    line = synthmed.err.splitlines()[-1]
    assert all(word in line for word in [*words, "The evidence: ", "steward"]), line
    assert not RELEASE.exists()
    assert list(Path("runs/r/export").glob(".release*")) == []


@pytest.mark.slow
def test_validators_are_run_and_what_they_say_is_signed(synthmed: Command, config: Path) -> None:
    assert synthmed("export", config, "--validate", "--format", "nifti", "--format", "dicom") == 0, synthmed.err
    [line] = [line for line in synthmed.err.splitlines() if line.startswith("Validators: ")]
    assert "failed" not in line
    assert "dciodvfy passed" in line
    listed = (RELEASE / "SHA256SUMS").read_text()
    assert "  validation/dciodvfy.json\n" in listed
    assert synthmed("verify", RELEASE) == 0


def test_a_validator_that_finds_an_error_blocks_the_release(
    synthmed: Command, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthmed.export.validation import verdicts
    from synthmed.export.validation.running import VALIDATORS

    said = verdicts.Said("Missing attribute", 3, "dicom/x.dcm")
    monkeypatch.setattr(
        "synthmed.export.validation.running.VALIDATORS",
        (VALIDATORS[0], lambda part: verdicts.Verdict("strict", verdicts.FAILED, errors=(said,))),
    )
    assert synthmed("export", config, "--validate") == 8
    assert "strict: Missing attribute" in synthmed.err.splitlines()[-1]
    assert not RELEASE.exists()
    assert synthmed("export", "runs/r") == 8, "the option is remembered"
    assert "`synthmed export --no-validate` writes it" in synthmed.err.splitlines()[-1]
    assert synthmed("export", "runs/r", "--no-validate") == 0


def test_verify_names_each_finding_on_a_line(synthmed: Command, config: Path) -> None:
    assert synthmed("export", config) == 0
    for name in ("SHA256SUMS.sig", "signer.pub", "provenance.dsse.json"):
        (RELEASE / name).unlink()
    (RELEASE / "notes.txt").write_text("x")
    assert synthmed("verify", RELEASE) == 8
    assert synthmed.out.splitlines() == [
        "notes.txt: was added: SHA256SUMS does not list it",
        "SHA256SUMS.sig: is missing: the release is not signed",
    ]
    assert "2 findings" in synthmed.err


def test_verify_of_a_run_names_its_release(synthmed: Command, config: Path) -> None:
    assert synthmed("export", config) == 0
    assert synthmed("verify", "runs/r") == 8
    assert synthmed.err == f"synthmed: runs/r is a run and not a release. Its release: synthmed verify {RELEASE}\n"
    assert synthmed.out == ""


def test_a_tilde_is_the_home_for_keygen_and_verify(
    synthmed: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert synthmed("keygen", "~/k.pem") == 0
    assert (tmp_path / "home" / "k.pem").is_file()
    assert synthmed("export", config, "--key", "~/k.pem") == 0
    assert synthmed("verify", RELEASE, "--key", "~/k.pub") == 0


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file/x.pem", ["No key can be written into file; found a file"]),
        ("file/deeper/x.pem", ["No key can be written into file/deeper; found a file"]),
        ("x.pub", ["x.pub is a name for a public key", "synthmed keygen x.pem"]),
    ],
)
def test_keygen_where_no_key_can_lie(
    synthmed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert synthmed("keygen", place) == 2
    assert len(synthmed.err.splitlines()) == 1
    assert all(word in synthmed.err for word in words), synthmed.err
    assert [p.name for p in Path().iterdir()] == ["file"]


def test_keygen(synthmed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert synthmed("keygen") == 0
    file = tmp_path / "home" / "synthmed" / "signing-key.pem"
    assert str(file) in synthmed.out
    assert fingerprint(load_public_key(file.with_suffix(".pub"))) in synthmed.out
    assert "PRIVATE" not in synthmed.out
    content = file.read_bytes()
    assert synthmed("keygen") == 2
    assert "never overwritten" in synthmed.err
    assert file.read_bytes() == content
    assert synthmed("keygen", tmp_path / "other.pem") == 0
    assert (tmp_path / "other.pem").stat().st_mode & 0o777 == 0o600
