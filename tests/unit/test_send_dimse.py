"""C-STORE against servers in this process that store, refuse, hang, break off or lie."""

from __future__ import annotations

import json
import re
import signal
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import make_authority
from dicom_files import Grid
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from sendable import bytes_of, slices, small_release, write_release
from servers import AET, Archive, dicom_node, proxy, silent_port

from synthmed.errors import ConfigError, SendIncomplete, VerificationFailed
from synthmed.export import Finding
from synthmed.send import Certificates, Patience, Sent, parse_target, send

QUICK = Patience(retries=1, timeout=2.0, first_wait=0.01)
HASTY = Patience(retries=0, timeout=0.4, first_wait=0.01)
FILES = 8


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two cases of three slices and a segmentation each: eight files in four series."""
    return small_release(tmp_path / "release")


def deliver(release: Path, address: str, patience: Patience = QUICK, **settings: Any) -> Sent:
    return send(release, parse_target(address), patience=patience, check=lambda folder, key: [], **settings)


def failure(release: Path, address: str, patience: Patience = QUICK, **settings: Any) -> str:
    with pytest.raises(SendIncomplete) as caught:
        deliver(release, address, patience, **settings)
    assert caught.value.exit_code == 9
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_is_stored_counted_and_not_sent_twice(release: Path) -> None:
    before = bytes_of(release)
    with dicom_node(Archive()) as archive:
        first, second = deliver(release, archive.node), deliver(release, archive.node)
        assert len(archive.requests) == FILES
    assert (first.sent, first.before, first.stored, first.series) == (FILES, 0, FILES, 4)
    assert (second.sent, second.before, second.stored) == (0, FILES, FILES)
    assert bytes_of(release) == before
    for path in release.rglob("*.dcm"):
        sent = archive.held[next(u for u in archive.held if u.encode() in path.read_bytes())]
        assert sent.PixelData in path.read_bytes()


def test_a_finding_forbids_any_connection(release: Path) -> None:
    with (
        dicom_node(Archive()) as archive,
        pytest.raises(VerificationFailed, match=r"cases.csv: was changed and 1 more"),
    ):
        send(
            release,
            parse_target(archive.node),
            check=lambda folder, key: [Finding("cases.csv", "was changed"), Finding("a", "b")],
        )
    assert archive.requests == []
    assert list(release.parent.glob("*.jsonl")) == []


def test_the_advice_after_a_finding_repeats_the_key(release: Path, tmp_path: Path) -> None:
    asked: list[Path | None] = []

    def check(folder: Path, key: Path | None) -> list[Finding]:
        asked.append(key)
        return [Finding("signer.pub", "signed by another key")]

    key = tmp_path / "theirs.pub"
    with pytest.raises(VerificationFailed) as caught:
        send(release, parse_target("dicom://A@127.0.0.1:1"), key=key, check=check)
    assert caught.value.next_step == f"See them all with: synthmed verify {release} --key {key}"
    assert asked == [key]


def test_the_real_verification_is_the_default(release: Path) -> None:
    with pytest.raises(VerificationFailed, match="Nothing was sent"):
        send(release, parse_target("dicom://A@127.0.0.1:1"))


def test_compressed_files_go_in_their_own_syntax(tmp_path: Path) -> None:
    release = small_release(tmp_path / "release", compressed=True)
    with dicom_node(Archive()) as archive:
        deliver(release, archive.node)
    syntaxes = {d.file_meta.TransferSyntaxUID for d in archive.held.values() if d.Modality == "CT"}
    assert syntaxes == {RLELossless}


def test_a_server_without_that_syntax_is_told_nothing_else(tmp_path: Path) -> None:
    release = small_release(tmp_path / "release", compressed=True)
    with dicom_node(Archive(), syntaxes=(ImplicitVRLittleEndian,)) as archive:
        assert "does not take CT Image Storage in RLE Lossless; a release without compression" in failure(
            release, archive.node
        )
    assert archive.requests == []


def test_a_server_of_the_default_syntax_takes_uncompressed_files(release: Path) -> None:
    with dicom_node(Archive(), syntaxes=(ImplicitVRLittleEndian,)) as archive:
        assert deliver(release, archive.node).stored == FILES
    assert {d.file_meta.TransferSyntaxUID for d in archive.held.values()} == {ImplicitVRLittleEndian}


def test_a_class_that_is_not_taken_is_named_before_anything_goes(release: Path) -> None:
    with dicom_node(Archive(), classes=("1.2.840.10008.5.1.4.1.1.2",)) as archive:
        assert "does not take Segmentation Storage" in failure(release, archive.node)
    assert archive.requests == []


def test_a_wrong_title_is_rejected_once(release: Path) -> None:
    said: list[str] = []
    with dicom_node(Archive()) as archive:
        line = failure(release, archive.node.replace(AET, "OTHER"), say=said.append)
    assert "rejected the association of SYNTHMED with OTHER: called AE title not recognised" in line
    assert "0 of 8 files sent" in line
    assert said == []


def test_nothing_listens(release: Path) -> None:
    said: list[str] = []
    assert "nothing listens there" in failure(release, "dicom://A@127.0.0.1:1", say=said.append)
    assert len(said) == 1
    assert "no host of that name" in failure(release, "dicom://A@no-such-host.invalid:104", HASTY)


@pytest.mark.parametrize(
    ("code", "tries", "words"),
    [
        (0xA700, 2, "out of resources: status 0xA700"),
        (0xA900, 1, "status 0xA900"),
        (0x0124, 1, "status 0x0124"),
        (0xC001, 1, "status 0xC001"),
    ],
)
def test_failures_are_retried_only_where_that_helps(release: Path, code: int, tries: int, words: str) -> None:
    with dicom_node(Archive(fault=lambda number, event: code if number >= 5 else None)) as archive:
        line = failure(release, archive.node)
    assert words in line
    assert "5 of 8 files sent" in line
    assert len(archive.requests) == 5 + tries


def test_a_busy_server_is_waited_for(release: Path) -> None:
    with dicom_node(Archive(fault=lambda number, event: 0xA700 if number % 2 else None)) as archive:
        assert deliver(release, archive.node).stored == FILES


def test_warnings_are_stored_and_told(release: Path) -> None:
    with dicom_node(Archive(fault=lambda number, event: 0xB000 if number < 3 else None)) as archive:
        assert deliver(release, archive.node).remarks == {"stored with status 0xB000": 3}


def test_a_duplicate_that_the_server_holds_is_a_success(release: Path) -> None:
    with dicom_node(Archive()) as archive:
        deliver(release, archive.node)
        archive.fault = lambda number, event: 0x0111
        again = deliver(release, archive.node, journal=release.parent / "other.jsonl")
        assert again.remarks == {"held already": FILES}
        archive.held.clear()
        assert "0x0111" in failure(release, archive.node, journal=release.parent / "third.jsonl")


def test_a_connection_that_breaks_is_made_again_and_only_the_rest_goes(release: Path) -> None:
    def drop(number: int, event: Any) -> None:
        if number == 3:
            event.assoc.abort(block=False)

    said: list[str] = []
    with dicom_node(Archive(fault=drop)) as archive:
        assert deliver(release, archive.node, say=said.append).stored == FILES
    assert len(archive.requests) == FILES + 1
    assert said == ["The server broke the connection off; trying again in 0.01 s (1 of 1)"]


def test_a_second_run_resumes_after_the_server_went_away(release: Path) -> None:
    def die(number: int, event: Any) -> None:
        if number >= 5:
            event.assoc.abort(block=False)

    with dicom_node(Archive(fault=die)) as archive:
        assert "broke the connection off; found 5 of 8 files sent" in failure(release, archive.node)
        archive.fault = lambda number, event: None
        sent_before = set(archive.requests[:5])
        archive.requests.clear()
        done = deliver(release, archive.node)
    assert (done.sent, done.before, done.stored) == (3, 5, FILES)
    assert not sent_before & set(archive.requests)


def press_ctrl_c(after: float = 0.0) -> None:
    """Interrupt the main thread from another, as the terminal does."""
    main = threading.main_thread().ident or 0
    threading.Timer(after, lambda: signal.pthread_kill(main, signal.SIGINT)).start()


def test_ctrl_c_keeps_what_was_sent(release: Path) -> None:
    def press(number: int, event: Any) -> None:
        if number == 4:
            press_ctrl_c()
            archive.release.wait(5)

    said: list[str] = []
    archive = Archive(fault=press)
    with dicom_node(archive):
        with pytest.raises(KeyboardInterrupt):
            deliver(release, archive.node, say=said.append)
        archive.release.set()
        assert said == ["sent so far: 4 of 8 files"]
        archive.fault = lambda number, event: None
        assert deliver(release, archive.node).before == 4


@pytest.mark.parametrize("scheme", ["dicom", "dicoms"])
def test_ctrl_c_does_not_wait_for_a_silent_server(release: Path, scheme: str) -> None:
    before = set(threading.enumerate())
    with silent_port() as port:
        start = time.monotonic()
        press_ctrl_c(after=0.3)
        with pytest.raises(KeyboardInterrupt):
            deliver(release, f"{scheme}://A@127.0.0.1:{port}", Patience(timeout=60.0))
        left = [t for t in threading.enumerate() if t not in before and not t.daemon]
        for thread in left:
            thread.join(5)
    assert time.monotonic() - start < 5
    assert not any(thread.is_alive() for thread in left)


def test_silence_is_a_failure_after_the_timeout(release: Path) -> None:
    start = time.monotonic()
    with silent_port() as port:
        assert re.search(r"said nothing for 0\.[4-9]", failure(release, f"dicom://A@127.0.0.1:{port}", HASTY))
    archive = Archive()
    archive.fault = lambda number, event: archive.release.wait(10) and 0
    with dicom_node(archive):
        assert re.search(r"said nothing for 0\.[4-9]", failure(release, archive.node, HASTY))
        archive.release.set()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(("stall", "words"), [(True, "said nothing"), (False, "broke the connection off")])
def test_a_peer_that_stops_reading_in_the_middle_of_a_file(tmp_path: Path, stall: bool, words: str) -> None:
    # Larger than what the system keeps for a connection, so that writing really stops.
    voxels = np.zeros((3000, 3000, 1), dtype=np.int16)
    release = write_release(tmp_path / "release", slices("CT", "case", voxels, Grid()))
    start = time.monotonic()
    with dicom_node(Archive()) as archive, proxy(archive.port, 100_000, stall=stall) as port:
        node = archive.node.replace(str(archive.port), str(port))
        line = failure(release, node, Patience(retries=0, timeout=0.5))
        assert words in line
    assert time.monotonic() - start < 10
    assert not any(t.name.startswith("Requestor") for t in threading.enumerate())


def test_a_server_without_queries_is_not_believed(release: Path) -> None:
    with dicom_node(Archive(), find=False) as archive:
        assert "does not answer queries (C-FIND)" in failure(release, archive.node)
    assert len(archive.held) == FILES


def test_a_server_that_loses_files_is_found_out_and_gets_them_again(release: Path) -> None:
    lost: Callable[[str], bool] = lambda uid: len(archive.held) < 6  # noqa: E731
    archive = Archive(keep=lost)
    with dicom_node(archive):
        line = failure(release, archive.node)
        assert "confirmed all files and does not hold them all; found 6, without dicom/" in line
        archive.keep = lambda uid: True
        done = deliver(release, archive.node)
    assert (done.sent, done.before, done.stored) == (2, 6, FILES)


def test_files_of_others_in_our_series_are_found_out(release: Path) -> None:
    with dicom_node(Archive()) as archive:
        deliver(release, archive.node)
        any_file = next(iter(archive.held.values()))
        archive.held["1.2.3"] = any_file
        assert "holds more in these series than the release does; found 9 files; expected 8" in failure(
            release, archive.node
        )


def test_a_file_changed_while_sending_is_not_sent(release: Path) -> None:
    last = sorted(release.rglob("*.dcm"))[-1]

    def change(number: int, event: Any) -> None:
        last.write_bytes(b"other bytes")

    with dicom_node(Archive(fault=change)) as archive, pytest.raises(VerificationFailed, match="changed while"):
        deliver(release, archive.node)
    assert len(archive.requests) == FILES - 1


def test_titles_and_certificates_are_checked_first(release: Path) -> None:
    with pytest.raises(ConfigError, match="title"):
        deliver(release, "dicom://A@127.0.0.1:1", calling="a title that is too long")
    with pytest.raises(ConfigError, match="not encrypted"):
        deliver(release, "dicom://A@127.0.0.1:1", certificates=Certificates(ca=Path("ca.pem")))


def test_an_untrusted_certificate_is_refused_without_a_retry(release: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir(), theirs.mkdir()
    cert, key = make_authority(theirs).issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    said: list[str] = []
    with dicom_node(Archive(), tls=context) as archive:
        node = archive.node.replace("dicom:", "dicoms:")
        line = failure(release, node, certificates=Certificates(make_authority(ours).file), say=said.append)
        assert "certificate that is not trusted" in line
        assert said == []
        done = deliver(release, node, certificates=Certificates(theirs / "authority.crt"))
    assert done.stored == FILES


def test_the_journal_holds_names_of_the_release_alone(release: Path) -> None:
    with dicom_node(Archive()) as archive:
        done = deliver(release, archive.node)
    records = [json.loads(line) for line in done.journal.read_text().splitlines()]
    assert {record["file"] for record in records} == {n for n in bytes_of(release) if n.endswith(".dcm")}
    assert str(release.parent) not in done.journal.read_text()
