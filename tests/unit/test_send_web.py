"""STOW-RS against servers in this process that store, refuse, hang, break off or lie, and the verb itself."""

from __future__ import annotations

import base64
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from certificates import make_authority
from sendable import bytes_of, small_release
from servers import Archive, silent_port, web_service

from synthmed.cli import main
from synthmed.errors import ConfigError, SendIncomplete
from synthmed.send import Certificates, Patience, Sent, parse_target, send
from synthmed.send.web import PASSWORD, USER

QUICK = Patience(retries=1, timeout=2.0, first_wait=0.01)
HASTY = Patience(retries=0, timeout=0.4, first_wait=0.01)
FILES = 8


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (USER, PASSWORD, "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two cases of three slices and a segmentation each: eight files in four series."""
    return small_release(tmp_path / "release")


def deliver(release: Path, address: str, patience: Patience = QUICK, **settings: Any) -> Sent:
    return send(release, parse_target(address), patience=patience, check=lambda folder, key: [], **settings)


def failure(release: Path, address: str, patience: Patience = QUICK, **settings: Any) -> str:
    with pytest.raises(SendIncomplete) as caught:
        deliver(release, address, patience, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_is_stored_counted_and_not_sent_twice(release: Path) -> None:
    before = bytes_of(release)
    with web_service(Archive()) as archive:
        first, second = deliver(release, archive.web), deliver(release, archive.web)
        assert len(archive.requests) == 1  # small files share a request
    assert (first.sent, first.stored, second.sent, second.before, second.stored) == (FILES, FILES, 0, FILES, FILES)
    assert bytes_of(release) == before
    for path in release.rglob("*.dcm"):
        sent = archive.held[next(u for u in archive.held if u.encode() in path.read_bytes())]
        assert sent.PixelData in path.read_bytes()


def test_long_series_are_counted_page_by_page(tmp_path: Path) -> None:
    release = small_release(tmp_path / "release", cases=1, depth=7)
    with web_service(Archive()) as archive:  # which gives two files a page
        assert deliver(release, archive.web).stored == 8


def test_a_request_that_is_too_large_is_halved(release: Path) -> None:
    sizes: list[int] = []

    def most(number: int, body: bytes) -> int | None:
        sizes.append(len(body))
        return 413 if len(body) > 4000 else None

    with web_service(Archive(fault=most)) as archive:
        assert deliver(release, archive.web).stored == FILES
    assert sum(size > 4000 for size in sizes) <= 2


def test_a_file_that_is_too_large_alone_is_named(release: Path) -> None:
    with web_service(Archive(fault=lambda number, body: 413)) as archive:
        line = failure(release, archive.web)
    assert re.search(r"takes no file of this size \(HTTP 413\) \(dicom/case0/\S+\.dcm, ", line)


@pytest.mark.parametrize(
    ("code", "tries", "words"),
    [
        (401, 1, "asks for a user and password; set SYNTHMED_SEND_USER"),
        (403, 1, "forbids"),
        (404, 1, "has no DICOMweb service at this address"),
        (409, 1, "did not store 8 files, such as 2.25."),
        (415, 1, "does not take DICOM"),
        (302, 1, "redirects to another address"),
        (500, 2, "HTTP 500"),
        (503, 2, "HTTP 503"),
        (507, 2, "is out of space"),
        (202, 2, "is out of resources"),
        (0, 2, "broke the connection off"),
    ],
)
def test_failures_are_retried_only_where_that_helps(release: Path, code: int, tries: int, words: str) -> None:
    with web_service(Archive(fault=lambda number, body: code)) as archive:
        line = failure(release, archive.web)
    assert words in line
    assert "0 of 8 files sent" in line
    assert len(archive.requests) == tries


def test_duplicates_that_the_server_holds_are_a_success(release: Path) -> None:
    with web_service(Archive()) as archive:
        deliver(release, archive.web)
        archive.fault = lambda number, body: 409
        again = deliver(release, archive.web, journal=release.parent / "other.jsonl")
    assert again.remarks == {"held already": FILES}


def test_a_broken_connection_is_made_again(release: Path) -> None:
    with web_service(Archive(fault=lambda number, body: 0 if number == 0 else None)) as archive:
        assert deliver(release, archive.web).stored == FILES


def test_a_second_run_sends_only_the_rest(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthmed.send.web._BATCH_BYTES", 2500)  # two files
    with web_service(Archive(fault=lambda number, body: 503 if number >= 2 else None)) as archive:
        line = failure(release, archive.web)
        sent = int(re.search(r"found (\d) of 8 files sent", line)[1])  # type: ignore[index]
        archive.fault = lambda number, body: None
        held = set(archive.held)
        archive.held.clear()
        assert "does not hold them all" in failure(release, archive.web)
        assert len(archive.held) == FILES - sent == FILES - len(held)
        assert not held & set(archive.held)
        assert deliver(release, archive.web).before == FILES - sent


def test_silence_is_a_failure_after_the_timeout(release: Path) -> None:
    start = time.monotonic()
    with silent_port() as port:
        for scheme in ("http", "https"):
            assert "said nothing for 0.4 s" in failure(release, f"{scheme}://127.0.0.1:{port}/x", HASTY)
    assert time.monotonic() - start < 5


def test_nothing_listens(release: Path) -> None:
    assert "nothing listens there" in failure(release, "http://127.0.0.1:1/x", HASTY)
    assert "no host of that name" in failure(release, "http://no-such-host.invalid/x", HASTY)


def test_a_server_that_is_none_of_dicomweb(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servers._stow", lambda parts, status: "hello")
    with web_service(Archive()) as archive:
        assert "does not answer as a DICOMweb service does" in failure(release, archive.web)


def test_a_server_that_loses_files_is_found_out(release: Path) -> None:
    archive = Archive(keep=lambda uid: len(archive.held) < 6)
    with web_service(archive):
        assert "found 6, without dicom/" in failure(release, archive.web)
        archive.keep = lambda uid: True
        assert deliver(release, archive.web).sent == 2


def test_the_password_comes_from_the_environment_or_netrc(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with web_service(Archive()) as archive:
        deliver(release, archive.web)
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login nurse password from-netrc\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        deliver(release, archive.web, journal=tmp_path / "2.jsonl")
        monkeypatch.setenv(USER, "nurse")
        with pytest.raises(ConfigError, match="go together"):
            deliver(release, archive.web, journal=tmp_path / "3.jsonl")
        monkeypatch.setenv(PASSWORD, "from-environment")
        deliver(release, archive.web, journal=tmp_path / "3.jsonl", say=said.append)
    given = [base64.b64decode(text.removeprefix("Basic ")).decode() for text in archive.requests]
    assert given == ["", "nurse:from-netrc", "nurse:from-environment"]
    assert said == [f"The password goes to {archive.web} unencrypted"]


def test_https_trusts_the_authority_that_is_named_and_no_other(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    authority = make_authority(theirs)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(make_authority(ours).file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    cert, key = authority.issue("client")
    with web_service(Archive(), tls=context) as archive:
        web = archive.web.replace("http:", "https:")
        line = failure(release, web, certificates=Certificates(ours / "authority.crt", cert, key))
        assert "certificate that is not trusted" in line
        done = deliver(release, web, certificates=Certificates(authority.file, cert, key))
        assert done.stored == FILES
        with pytest.raises(SendIncomplete):
            deliver(release, web, certificates=Certificates(authority.file))


def test_the_verb_prints_the_count_and_ends_with_the_code(
    release: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synthmed.export.verify", lambda folder, key: [])
    monkeypatch.setattr("signal.signal", lambda number, handler: None)

    def verb(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["synthmed", "send", str(release), "--quiet", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    with web_service(Archive()) as archive:
        code, output, errors = verb("--to", archive.web)
        assert (code, errors) == (0, "")
        assert output.startswith(f"8 files sent to {archive.web}, 0 before. The server holds 8 of 8, in 4 series.")
        archive.held.clear()
        code, _, errors = verb("--to", archive.web, "--retries", "0")
    assert code == 9
    assert re.fullmatch(r"synthmed: http://\S+ confirmed all files and does not hold them all; .*\n", errors)
    assert verb("--to", "nowhere")[0] == 2


def test_the_verb_refuses_what_does_not_verify(release: Path) -> None:
    command = [Path(sys.executable).with_name("synthmed"), "send", release, "--to", "http://127.0.0.1:1/x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 8
    assert done.stderr.startswith("synthmed: Nothing was sent; found ")
    done = subprocess.run([*command, "--key", release / "none.pub"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "none.pub" in done.stderr
