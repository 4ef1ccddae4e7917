"""Addresses, certificates and the journal: what can be wrong before anything is connected."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from certificates import make_authority
from sendable import small_release

from synthmed.errors import ConfigError, StorageError, VerificationFailed
from synthmed.send import Certificates, parse_target
from synthmed.send.instances import read_bytes, read_instances
from synthmed.send.journal import Journal, check_outside, journal_path
from synthmed.send.peers import Dropped, Patience, persist
from synthmed.send.targets import DicomNode, WebRoot

NODE = parse_target("dicom://A@host:104")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("dicom://STORE@pacs.example:104", DicomNode("STORE", "pacs.example", 104, False)),
        ("dicoms://STORE@pacs.example:2762", DicomNode("STORE", "pacs.example", 2762, True)),
        ("dicom://My%20Store@[::1]:11112", DicomNode("My Store", "::1", 11112, False)),
        ("https://host/dicom-web/", WebRoot("https://host/dicom-web", "host", True)),
        ("http://[::1]:8042/a/b", WebRoot("http://[::1]:8042/a/b", "[::1]:8042", False)),
    ],
)
def test_addresses(text: str, node: object) -> None:
    assert parse_target(text) == node


def test_an_address_is_written_as_it_was_read() -> None:
    for text in ("dicom://STORE@pacs.example:104", "dicoms://S@[::1]:2762", "https://host/dicom-web"):
        assert str(parse_target(text)) == text


def test_the_tls_flag_encrypts_a_dicom_address() -> None:
    assert parse_target("dicom://A@host:104", tls=True) == parse_target("dicoms://A@host:104")
    with pytest.raises(ConfigError, match="Write https://"):
        parse_target("http://host/dicom-web", tls=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host:104",
        "ftp://host",
        "dicom://host:104",
        "dicom://A@host",
        "dicom://A@:104",
        "dicom://A@host:104/path",
        "dicom://A@host:99999",
        "dicom://A-title-of-17-chr@host:104",
        "dicom://A%5CB@host:104",
        "https://",
        "https://host/x?y=1",
        "https://host/x#y",
    ],
)
def test_unusable_addresses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_target(text)


@pytest.mark.parametrize("text", ["https://me:secret@host/x", "https://secret@host/x", "dicom://A:secret@host:104"])
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="SYNTHMED_SEND_PASSWORD") as caught:
        parse_target(text)
    assert "secret" not in str(caught.value)


def test_certificates_must_exist_belong_together_and_be_of_use(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    cert, key = authority.issue("client")
    secure = parse_target("https://host/x")
    Certificates(authority.file, cert, key).check(secure)
    for wrong in (Certificates(tmp_path / "none.pem"), Certificates(cert=cert), Certificates(key=key)):
        with pytest.raises(ConfigError):
            wrong.check(secure)
    with pytest.raises(ConfigError, match="not encrypted"):
        Certificates(authority.file).check(NODE)


def test_files_that_are_no_certificates_or_do_not_match_are_named(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    cert, _ = authority.issue("one")
    _, other_key = authority.issue("two")
    (tmp_path / "text.pem").write_text("nothing")
    for wrong in (Certificates(tmp_path / "text.pem"), Certificates(authority.file, cert, other_key)):
        with pytest.raises(ConfigError, match="cannot be used"):
            wrong.context()


def test_an_encrypted_key_does_not_ask_on_the_terminal(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    cert, key = authority.issue("client", password=b"secret")
    with pytest.raises(ConfigError, match="encrypted"):
        Certificates(authority.file, cert, key).context()


def test_the_journal_remembers_files_by_their_bytes(tmp_path: Path) -> None:
    first, second, *_ = read_instances(small_release(tmp_path / "release"))
    path = tmp_path / "sent.jsonl"
    with Journal(path) as journal:
        journal.add([first, second])
    with Journal(path) as journal:
        assert first in journal
        assert second in journal
        journal.forget([second])
    changed = type(first)(**(vars(first) | {"sha256": "0" * 64}))
    with Journal(path) as journal:
        assert first in journal
        assert changed not in journal
        assert second not in journal


def test_a_torn_line_costs_one_file_and_no_other(tmp_path: Path) -> None:
    first, second, third, *_ = read_instances(small_release(tmp_path / "release"))
    path = tmp_path / "sent.jsonl"
    with Journal(path) as journal:
        journal.add([first, second])
    path.write_bytes(path.read_bytes()[:-30])
    with Journal(path) as journal:
        assert second not in journal
        journal.add([third])
    path.write_text(path.read_text() + '"a text"\n[]\n{"uid": 3}\n')
    with Journal(path) as journal:
        assert [i in journal for i in (first, second, third)] == [True, False, True]
    assert json.loads(path.read_text().splitlines()[-4])["file"] == third.file


def test_each_target_has_a_journal_beside_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "release"
    release.mkdir()
    path = journal_path(release, NODE)
    assert path.parent == tmp_path
    assert path.name.startswith("release.sent-")
    assert path != journal_path(release, parse_target("dicom://B@host:104"))
    monkeypatch.chdir(release)
    assert journal_path(Path("."), NODE) == path
    check_outside(path, release)


def test_a_journal_inside_the_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "release")
    for path in (tmp_path / "release" / "sent.jsonl", tmp_path / "link" / "a" / "sent.jsonl", tmp_path / "release"):
        with pytest.raises(ConfigError, match="inside the release"):
            check_outside(path, tmp_path / "release")


def test_a_journal_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    class FullDisk(Journal):
        def __enter__(self) -> Journal:
            super().__enter__()
            self._stream = Path("/dev/full").open("a", encoding="utf-8")
            return self

        def __exit__(self, *_: object) -> None:
            return

    instances = read_instances(small_release(tmp_path / "release"))
    with FullDisk(tmp_path / "sent.jsonl") as journal, pytest.raises(StorageError):
        journal.add(instances)


def test_a_journal_is_made_at_its_first_line(tmp_path: Path) -> None:
    instances = read_instances(small_release(tmp_path / "release"))
    path = tmp_path / "new" / "sent.jsonl"
    with Journal(path) as journal:
        assert not path.parent.exists()
        journal.add(instances[:1])
        assert instances[0] in journal
    assert len(path.read_text().splitlines()) == 1


def test_a_journal_on_read_only_media_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(StorageError, match="name another file with --journal"), Journal(tmp_path / "sent.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_address_without_a_title_shows_the_form() -> None:
    with pytest.raises(ConfigError, match=r"found dicom://localhost:14242; expected dicom://AET@host:port"):
        parse_target("dicom://localhost:14242")


def test_only_dicom_with_a_checksum_is_sent(tmp_path: Path) -> None:
    release = small_release(tmp_path / "release")
    assert len(read_instances(release)) == 8
    (release / "dicom" / "case0" / "DICOMDIR").write_text("an index")
    assert len(read_instances(release)) == 8
    (release / "dicom" / "extra.dcm").write_bytes(b"not DICOM")
    with pytest.raises(VerificationFailed, match="no line"):
        read_instances(release)
    with (release / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  dicom/extra.dcm\n")
    with pytest.raises(VerificationFailed, match="not a DICOM file"):
        read_instances(release)


def test_two_files_of_one_uid_are_refused(tmp_path: Path) -> None:
    release = small_release(tmp_path / "release")
    file = next(p for p in release.rglob("*.dcm"))
    file.with_name("copy.dcm").write_bytes(file.read_bytes())
    with (release / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {file.with_name('copy.dcm').relative_to(release).as_posix()}\n")
    with pytest.raises(VerificationFailed, match="share the SOP Instance UID"):
        read_instances(release)


def test_a_release_without_dicom_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("")
    with pytest.raises(ConfigError, match="--format dicom"):
        read_instances(tmp_path)


def test_bytes_that_changed_after_the_verification_are_not_sent(tmp_path: Path) -> None:
    release = small_release(tmp_path / "release")
    instance = read_instances(release)[0]
    (release / instance.file).write_bytes(read_bytes(release, instance)[:-1] + b"\1")
    with pytest.raises(VerificationFailed, match="changed while"):
        read_bytes(release, instance)
    (release / instance.file).unlink()
    with pytest.raises(VerificationFailed, match="no longer be read"):
        read_bytes(release, instance)


def test_waits_double_up_to_their_bound() -> None:
    patience = Patience(first_wait=1.0, longest_wait=5.0)
    assert [patience.wait(n) for n in range(4)] == [1.0, 2.0, 4.0, 5.0]


def test_as_many_retries_as_asked_for() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise Dropped("is busy")

    said: list[str] = []
    with pytest.raises(Dropped):
        persist(fail, Patience(retries=2, first_wait=0.0), said.append)
    assert len(calls) == 3
    assert said == [
        "The server is busy; trying again in 0 s (1 of 2)",
        "The server is busy; trying again in 0 s (2 of 2)",
    ]
