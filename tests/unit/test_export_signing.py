"""Keys are made and read safely, and other people's tools accept what they sign."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from releases import Made, digest, statement_of
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature, SSlibKey

from synthmed.errors import ConfigError, StorageError
from synthmed.export import verify
from synthmed.export.seal import PROVENANCE, SIGNATURE, SIGNER, SUMS, pre_authentication_encoding
from synthmed.export.signing import (
    default_key,
    fingerprint,
    load_private_key,
    load_public_key,
    make_key,
    public_path,
    signing_key,
)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys é") / "hospital.pem"
    make_key(file)
    return file


@pytest.fixture(scope="module")
def released(pristine: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Made(pristine / "generate", pristine / "audit")
    return made.release(tmp_path_factory.mktemp("released") / "release", key=key)


@pytest.fixture
def release(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "release"))


def openssl_accepts(folder: Path, signature: Path, content: Path) -> bool:
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", SIGNER, "-rawin"]
    done = subprocess.run([*command, "-sigfile", signature, "-in", content], cwd=folder, capture_output=True, text=True)
    assert ("Verified Successfully" in done.stdout) == (done.returncode == 0), done.stderr
    return done.returncode == 0


def test_openssl_accepts_the_checksums_and_no_other(release: Path) -> None:
    assert openssl_accepts(release, release / SIGNATURE, release / SUMS)
    assert (release / SIGNATURE).stat().st_size == 64
    (release / SUMS).write_bytes((release / SUMS).read_bytes() + b"\n")
    assert not openssl_accepts(release, release / SIGNATURE, release / SUMS)


def test_openssl_accepts_the_envelope(release: Path, tmp_path: Path) -> None:
    content = json.loads((release / PROVENANCE).read_text())
    payload = base64.b64decode(content["payload"])
    # Written out by the letter of the specification, apart from the code under test.
    (tmp_path / "pae").write_bytes(b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload)
    [signature] = content["signatures"]
    (tmp_path / "sig").write_bytes(base64.b64decode(signature["sig"]))
    assert openssl_accepts(release, tmp_path / "sig", tmp_path / "pae")


def test_securesystemslib_accepts_both_and_no_other(release: Path) -> None:
    content = json.loads((release / PROVENANCE).read_text())
    public = load_public_key(release / SIGNER)
    trusted = SSlibKey.from_crypto(public, keyid=content["signatures"][0]["keyid"])
    envelope = Envelope.from_dict(json.loads(json.dumps(content)))
    assert envelope.verify([trusted], 1) == {fingerprint(public): trusted}
    plain = Signature(trusted.keyid, (release / SIGNATURE).read_bytes().hex())
    trusted.verify_signature(plain, (release / SUMS).read_bytes())
    with pytest.raises(UnverifiedSignatureError):
        trusted.verify_signature(plain, b"something else")
    stranger = SSlibKey.from_crypto(Ed25519PrivateKey.generate().public_key(), keyid=trusted.keyid)
    with pytest.raises(VerificationError):
        envelope.verify([stranger], 1)


def test_pre_authentication_encoding_is_that_of_the_specification() -> None:
    # The example of the DSSE specification, protocol.md.
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == expected


def test_the_fingerprint_is_what_openssl_and_sha256_give(key: Path, tmp_path: Path) -> None:
    command = ["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER", "-out", tmp_path / "der"]
    subprocess.run(command, check=True, capture_output=True)
    assert fingerprint(load_public_key(public_path(key))) == digest(tmp_path / "der")


def test_statement_names_every_file_with_its_digest(release: Path) -> None:
    statement = statement_of(release)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    seal = {PROVENANCE, SIGNER, SIGNATURE}
    files = {p.relative_to(release).as_posix(): digest(p) for p in release.rglob("*") if p.is_file()}
    stated = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    assert stated == {name: value for name, value in files.items() if name not in seal}
    listed = [line.split("  ")[1] for line in (release / SUMS).read_text().splitlines()]
    assert set(listed) == set(stated) - {SUMS}


def test_the_same_key_gives_the_same_bytes_and_another_key_another_signature(
    made: Made, key: Path, released: Path, tmp_path: Path
) -> None:
    again = made.release(tmp_path / "again", key=key)
    for name in (SUMS, SIGNATURE, SIGNER, PROVENANCE):
        assert (again / name).read_bytes() == (released / name).read_bytes()
    make_key(tmp_path / "other.pem")
    other = made.release(tmp_path / "other", key=tmp_path / "other.pem")
    assert (other / SUMS).read_bytes() == (released / SUMS).read_bytes()
    assert (other / SIGNATURE).read_bytes() != (released / SIGNATURE).read_bytes()


def test_verify_with_the_key_that_signed_and_with_another(release: Path, key: Path, tmp_path: Path) -> None:
    assert verify(release, public_path(key)) == []
    other = make_key(tmp_path / "other.pem")
    [finding] = verify(release, other)
    mine, theirs = fingerprint(load_public_key(public_path(key))), fingerprint(load_public_key(other))
    assert str(finding) == f"signer.pub: signed by another key: its fingerprint is {mine}, not {theirs}"


@pytest.mark.parametrize("content", [None, b"", b"no key", "private"])
def test_verify_says_when_the_key_named_is_none(release: Path, key: Path, tmp_path: Path, content: object) -> None:
    file = tmp_path / "x.pub"
    if content is not None:
        file.write_bytes(key.read_bytes() if content == "private" else content)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Cannot use the public key .*x\.pub") as caught:
        verify(release, file)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_key_is_private_and_openssl_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "place" / "k.pem"
    public = make_key(file)
    assert public == tmp_path / "new" / "place" / "k.pub"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert [p.name for p in sorted(file.parent.iterdir())] == ["k.pem", "k.pub"]
    done = subprocess.run(["openssl", "pkey", "-in", file, "-pubout"], capture_output=True, check=True)
    assert done.stdout == public.read_bytes()
    assert file.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_two_keys_are_not_the_same(tmp_path: Path) -> None:
    assert make_key(tmp_path / "a.pem").read_bytes() != make_key(tmp_path / "b.pem").read_bytes()


@pytest.mark.parametrize("taken", ["k.pem", "k.pub", "link"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    if taken == "link":
        (tmp_path / "k.pem").symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / taken).write_text("mine")
    with pytest.raises(ConfigError, match="exists already, and a key is never overwritten"):
        make_key(tmp_path / "k.pem")
    assert len(list(tmp_path.iterdir())) == 1
    assert taken == "link" or (tmp_path / taken).read_text() == "mine"


def test_a_key_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthmed.export import signing

    written = signing.private_pem

    def somebody_else_first(key: Ed25519PrivateKey) -> bytes:
        (tmp_path / "k.pem").write_text("theirs")
        return written(key)

    monkeypatch.setattr(signing, "private_pem", somebody_else_first)
    with pytest.raises(ConfigError, match="never overwritten"):
        make_key(tmp_path / "k.pem")
    assert [p.name for p in tmp_path.iterdir()] == ["k.pem"]
    assert (tmp_path / "k.pem").read_text() == "theirs"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o610])
def test_a_key_that_others_can_use_is_refused_before_anything_is_written(made: Made, tmp_path: Path, mode: int) -> None:
    file = tmp_path / "k.pem"
    make_key(file)
    file.chmod(mode)
    with pytest.raises(ConfigError, match="Others than its owner can use the signing key") as caught:
        made.release(tmp_path / "out" / "release", key=file)
    assert f"found mode {mode:04o}; expected 0600" in str(caught.value)
    assert f"chmod 600 {file}" in str(caught.value)
    assert not (tmp_path / "out").exists()
    file.chmod(0o600)
    assert verify(made.release(tmp_path / "out" / "release", key=file)) == []


def not_ed25519() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "something else"),
        (b"-----BEGIN PRIVATE KEY-----\nMC4CAQ", "something else"),
        (not_ed25519(), "a key for EC"),
        (Ed25519PrivateKey.generate().private_bytes_raw(), "something else"),
    ],
    ids=["empty", "cut short", "elliptic curve", "raw"],
)
def test_what_is_no_key_is_refused_in_one_line(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "k.pem").write_bytes(content)
    (tmp_path / "k.pem").chmod(0o600)
    with pytest.raises(ConfigError, match=found) as caught:
        load_private_key(tmp_path / "k.pem")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_key_that_cannot_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "directory":
        (tmp_path / "k.pem").mkdir()
    with pytest.raises(ConfigError, match=r"Cannot read the signing key .*synthmed keygen"):
        load_private_key(tmp_path / "k.pem")


def test_a_key_with_a_password(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHMED_KEY_PASSWORD", "søren")
    file = tmp_path / "k.pem"
    public = make_key(file)
    assert file.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert verify(made.release(tmp_path / "release", key=file), public) == []
    monkeypatch.setenv("SYNTHMED_KEY_PASSWORD", "wrong")
    with pytest.raises(ConfigError, match="another password than that in SYNTHMED_KEY_PASSWORD"):
        load_private_key(file)
    monkeypatch.delenv("SYNTHMED_KEY_PASSWORD")
    with pytest.raises(ConfigError, match=r"has a password\. Put it into the environment variable"):
        load_private_key(file)


def test_a_password_in_the_environment_leaves_other_keys_as_they_are(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTHMED_KEY_PASSWORD", "x")
    assert fingerprint(load_private_key(key).public_key()) == fingerprint(load_public_key(public_path(key)))


def test_the_default_key_is_made_once_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    said: list[str] = []
    first = signing_key(None, said.append)
    file = tmp_path / "config" / "synthmed" / "signing-key.pem"
    assert default_key() == file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [line] = said
    assert str(file) in line
    second = signing_key(None, said.append)
    assert len(said) == 1
    assert first.private_bytes_raw() == second.private_bytes_raw()


def test_two_first_exports_at_once_share_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthmed.export import signing

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    make_key(tmp_path / "theirs.pem")
    written = signing.private_pem

    def other_first(key: Ed25519PrivateKey) -> bytes:
        (tmp_path / "theirs.pem").rename(default_key())
        return written(key)

    monkeypatch.setattr(signing, "private_pem", other_first)
    said: list[str] = []
    key = signing_key(None, said.append)
    assert fingerprint(key.public_key()) == fingerprint(load_public_key(tmp_path / "theirs.pub"))
    assert said == []


def test_a_stray_public_key_in_the_default_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    default_key().parent.mkdir()
    public_path(default_key()).write_text("whose?")
    with pytest.raises(ConfigError, match=r"signing-key\.pub exists already"):
        signing_key(None, print)


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_the_default_place_without_a_usable_xdg_config_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_key() == tmp_path / ".config" / "synthmed" / "signing-key.pem"


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthmed.export import signing

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(signing, "_write_secret", full)
    with pytest.raises(StorageError, match=r"No space left on device\. Name a signing key: --key"):
        signing_key(None, print)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_tilde_in_the_key_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_key(tmp_path / "k.pem")
    signing_key(Path("~/k.pem"), print)


@pytest.mark.parametrize(
    ("name", "public"), [("k.pem", "k.pub"), ("k", "k.pub"), ("k.v2", "k.v2.pub"), ("k.pub", "k.pub.pub")]
)
def test_the_place_of_the_public_key(name: str, public: str) -> None:
    assert public_path(Path("keys") / name) == Path("keys") / public
