"""Each way of tampering with checksums, statement, signatures or key is found and named."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from releases import Made, digest, reseal, statement_of

from synthmed.export import signed_by, verify
from synthmed.export.seal import PROVENANCE, SEAL, SIGNATURE, SIGNER, SUMS, envelope
from synthmed.export.signing import default_key, fingerprint, load_private_key, public_pem

NOT_SIGNED = f"{PROVENANCE}: is not signed by {SIGNER}"
FORGED_SUMS = f"{SIGNATURE}: is not a signature of {SUMS} by {SIGNER}"


@pytest.fixture(scope="module")
def released(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Made(pristine / "generate", pristine / "audit")
    return made.release(tmp_path_factory.mktemp("released") / "release")


@pytest.fixture
def release(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "release"))


def problems(release: Path) -> list[str]:
    return [str(finding) for finding in verify(release)]


def renew_sums(release: Path) -> None:
    """Forge the checksums alone."""
    files = sorted(p.relative_to(release).as_posix() for p in release.rglob("*") if p.is_file())
    lines = [f"{digest(release / name)}  {name}\n" for name in files if name not in (SUMS, *SEAL)]
    (release / SUMS).write_text("".join(lines))


def test_a_release_that_is_not_signed(release: Path) -> None:
    for name in SEAL:
        (release / name).unlink()
    assert problems(release) == ["SHA256SUMS.sig: is missing: the release is not signed"]


def test_forged_checksums_hide_nothing(release: Path) -> None:
    (release / "README.md").write_text("changed")
    (release / "LICENSE").unlink()
    (release / "extra.txt").write_text("added")
    renew_sums(release)
    assert set(problems(release)) == {
        "LICENSE: is missing",
        f"LICENSE: is missing: {PROVENANCE} states it",
        f"README.md: is not the file that {PROVENANCE} states",
        f"SHA256SUMS: is not the file that {PROVENANCE} states",
        f"{PROVENANCE}: does not state extra.txt",
        FORGED_SUMS,
    }


def test_a_swapped_audit_report_is_named_whatever_else_is_forged(release: Path) -> None:
    report = release / "audit" / "report.json"
    report.write_text(report.read_text() + "\n")
    expected = {"audit/report.json: was changed: its digest is not that in SHA256SUMS"}
    gate = {"audit/report.json: is not the one that was approved"}
    record = {f"audit/report.json: is not the record that {PROVENANCE} names"}
    assert set(problems(release)) == expected | gate | record
    renew_sums(release)
    assert gate | record | {FORGED_SUMS} < set(problems(release))
    reseal(release)
    assert set(problems(release)) == gate


def test_another_key_beside_an_honest_seal(release: Path) -> None:
    (release / SIGNER).write_bytes(public_pem(Ed25519PrivateKey.generate().public_key()))
    assert problems(release) == [FORGED_SUMS, NOT_SIGNED]


def test_a_seal_of_ones_own_passes_only_where_no_key_is_named(release: Path) -> None:
    (release / "README.md").write_text("changed")
    reseal(release)
    assert verify(release) == []
    [finding] = verify(release, default_key().with_suffix(".pub"))
    assert finding.path == SIGNER
    assert finding.problem.startswith("signed by another key")
    assert signed_by(release) in finding.problem


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"\0" * 64, b"x" * 65])
def test_what_is_no_signature(release: Path, content: bytes) -> None:
    (release / SIGNATURE).write_bytes(content)
    assert problems(release) == [FORGED_SUMS]


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key(release: Path, content: bytes) -> None:
    (release / SIGNER).write_bytes(content)
    assert problems(release) == ["signer.pub: cannot be used: it is not a public key in PEM"]


def own_key() -> Ed25519PrivateKey:
    """The key that signed the release under test: what its owner could do, and nobody else."""
    return load_private_key(default_key())


def sign(release: Path, change: Callable[[dict[str, Any]], object]) -> None:
    statement = statement_of(release)
    change(statement)
    (release / PROVENANCE).write_text(json.dumps(envelope(statement, own_key())))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s["subject"].pop(3), f"{PROVENANCE}: does not state "),
        (lambda s: s["subject"][3]["digest"].update(sha256="0" * 64), f"is not the file that {PROVENANCE} states"),
        (
            lambda s: s["subject"].append({"name": "../up", "digest": {"sha256": "0" * 64}}),
            f"../up: is missing: {PROVENANCE} states it",
        ),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), f"{PROVENANCE}: is not a https://in-toto.io/"),
        (lambda s: s.update(predicateType="https://example.com/x"), f"{PROVENANCE}: is not a https://in-toto.io/"),
        (
            lambda s: s["predicate"]["runDetails"]["byproducts"][0]["digest"].update(sha256="0" * 64),
            f"audit/gate.json: is not the record that {PROVENANCE} names",
        ),
        (lambda s: s.pop("subject"), f"{PROVENANCE}: cannot be read: KeyError"),
        (lambda s: s.update(subject=[3]), f"{PROVENANCE}: cannot be read: TypeError"),
        (lambda s: s.update(predicate=None), f"{PROVENANCE}: cannot be read: TypeError"),
    ],
)
def test_a_statement_about_something_else(release: Path, change: Any, problem: str) -> None:
    sign(release, change)
    [found] = problems(release)
    assert problem in found


def edit(release: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((release / PROVENANCE).read_text())
    change(content)
    (release / PROVENANCE).write_text(json.dumps(content))


def flip(envelope: dict[str, Any]) -> None:
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[40] ^= 1
    envelope["payload"] = base64.b64encode(payload).decode()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (flip, NOT_SIGNED),
        (lambda e: e["signatures"].clear(), NOT_SIGNED),
        (lambda e: e["signatures"][0].update(sig=base64.b64encode(b"x" * 64).decode()), NOT_SIGNED),
        (lambda e: e.update(payloadType="application/json"), f"{PROVENANCE}: cannot be read: ValueError"),
        (lambda e: e.update(payload="%%%"), f"{PROVENANCE}: cannot be read: "),
        (lambda e: e.update(payload=3), f"{PROVENANCE}: cannot be read: TypeError"),
        (lambda e: e.update(signatures=[3]), f"{PROVENANCE}: cannot be read: TypeError"),
        (lambda e: e.pop("signatures"), f"{PROVENANCE}: cannot be read: KeyError"),
    ],
)
def test_a_mangled_envelope_is_a_finding_not_a_crash(release: Path, change: Any, problem: str) -> None:
    edit(release, change)
    [found] = problems(release)
    assert found.startswith(problem)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]"])
def test_an_unreadable_envelope_is_a_finding_not_a_crash(release: Path, content: bytes) -> None:
    (release / PROVENANCE).write_bytes(content)
    [found] = problems(release)
    assert found.startswith(f"{PROVENANCE}: cannot be read: ")


def test_a_second_signature_by_somebody_else_does_no_harm(release: Path) -> None:
    other = envelope(statement_of(release), Ed25519PrivateKey.generate())["signatures"]
    edit(release, lambda e: e.update(signatures=other + e["signatures"]))
    assert verify(release) == []


@pytest.mark.parametrize("name", SEAL)
def test_a_linked_seal_is_refused(release: Path, tmp_path: Path, name: str) -> None:
    shutil.move(release / name, tmp_path / "elsewhere")
    (release / name).symlink_to(tmp_path / "elsewhere")
    found = problems(release)
    assert f"{name}: is a symbolic link" in found
    assert f"{name}: is missing" in found


def test_signed_by_is_the_fingerprint(release: Path) -> None:
    assert signed_by(release) == fingerprint(own_key().public_key())


def test_a_file_name_cannot_write_on_the_terminal(release: Path) -> None:
    (release / "a\x1b[2J\nb.txt").write_text("x")
    assert problems(release) == ["a\\x1b[2J\\nb.txt: was added: SHA256SUMS does not list it"]
