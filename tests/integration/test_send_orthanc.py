"""A real PACS: exported releases go into Orthanc by C-STORE and STOW-RS, and come back by WADO-RS as they were."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from certificates import Authority, make_authority
from dicom_releases import approved, phantom
from orthanc import MISSING, Orthanc, https_front, running
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from pynetdicom import AE
from release_fidelity import IMAGE_READERS, SEG_READERS, compare
from releases import Made
from sendable import bytes_of

from synthmed.errors import SendIncomplete
from synthmed.send import Certificates, Patience, parse_target, send
from synthmed.send.delivery import deliver
from synthmed.send.dimse import DimsePeer
from synthmed.send.instances import read_instances
from synthmed.send.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

SYNTHMED = str(Path(sys.executable).with_name("synthmed"))
QUICK = Patience(retries=1, timeout=30.0, first_wait=0.1)
CASES = 2
FILES = CASES * (9 + 1)


@pytest.fixture(scope="module", params=["CT", "MR"])
def modality(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def release(modality: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verified release of two asymmetric, oblique, anisotropic cases with segmentations."""
    return exported(tmp_path_factory.mktemp("release"), modality)


def exported(folder: Path, modality: str, *, cases: int = CASES, **config: object) -> Path:
    approved(folder, modality, n=cases)
    return Made(folder / "generate", folder / "audit").release(folder / "release", formats=("dicom",), **config)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc."""
    with running(tmp_path / "orthanc") as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


def check_round_trip(release: Path, server: Orthanc, modality: str, scratch: Path) -> None:
    """Hold what WADO-RS gives against the phantoms and against the files, voxel by voxel."""
    places: dict[tuple[str, str], dict[str, pydicom.Dataset]] = {}
    for path in release.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        places.setdefault((data.StudyInstanceUID, data.SeriesInstanceUID), {})[data.SOPInstanceUID] = data
    checked = {"image": 0, "seg": 0}
    for (study, series), files in places.items():
        back = {data.SOPInstanceUID: data for data in server.retrieve(study, series)}
        assert back.keys() == files.keys()
        for uid, data in back.items():
            assert data.PixelData == files[uid].PixelData
            assert data.file_meta.TransferSyntaxUID == files[uid].file_meta.TransferSyntaxUID
            assert data.SyntheticData == "YES"
        first = next(iter(files.values()))
        case = int(str(first.PatientID).rsplit("_", 1)[1])
        folder = scratch / series
        folder.mkdir()
        for number, data in enumerate(back.values()):
            data.save_as(folder / f"{number}.dcm", enforce_file_format=True)
        truth = phantom(modality, case)
        written = truth.affine.astype(np.float32).astype(np.float64)
        if first.Modality == "SEG":
            (affine, corner), voxels = compare(
                SEG_READERS["highdicom"](folder / "0.dcm", scratch), np.where(truth.label <= 2, truth.label, 0), written
            )
            allowed = 0.0
            checked["seg"] += 1
        else:
            (affine, corner), voxels = compare(IMAGE_READERS["SimpleITK"](folder, scratch), truth.image, written)
            slope = max(float(data.RescaleSlope) for data in files.values())
            allowed = 0.0 if modality == "CT" else slope / 2 + 1e-4
            checked["image"] += 1
        assert affine < 1e-5
        assert corner < 1e-5
        assert voxels.max() <= allowed
    assert checked == {"image": CASES, "seg": CASES}


@pytest.mark.parametrize("way", ["node", "web"])
def test_affine_and_voxels_come_back(release: Path, modality: str, server: Orthanc, way: str, tmp_path: Path) -> None:
    before = bytes_of(release)
    journal = tmp_path / "sent.jsonl"
    done = send(release, parse_target(getattr(server, way)), patience=QUICK, journal=journal)
    assert (done.sent, done.stored, done.series) == (FILES, FILES, 2 * CASES)
    assert server.count() == FILES
    check_round_trip(release, server, modality, tmp_path)
    again = send(release, parse_target(getattr(server, way)), patience=QUICK, journal=journal)
    assert (again.sent, again.before, again.stored) == (0, FILES, FILES)
    assert bytes_of(release) == before


def test_both_ways_into_one_server_store_everything_once(release: Path, server: Orthanc, tmp_path: Path) -> None:
    for number, address in enumerate((server.node, server.web)):
        done = send(release, parse_target(address), patience=QUICK, journal=tmp_path / f"{number}.jsonl")
        assert (done.sent, done.stored) == (FILES, FILES)
    assert server.count() == FILES


@pytest.mark.parametrize("way", ["node", "web"])
@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_compressed_files_stay_compressed(server: Orthanc, way: str, enhanced: bool, tmp_path: Path) -> None:
    release = exported(tmp_path, "CT", cases=1, compression="rle", enhanced=enhanced)
    send(release, parse_target(getattr(server, way)), patience=QUICK)
    images = [data for data in map(pydicom.dcmread, release.rglob("*.dcm")) if data.Modality == "CT"]
    back = server.retrieve(images[0].StudyInstanceUID, images[0].SeriesInstanceUID)
    assert {data.file_meta.TransferSyntaxUID for data in back} == {RLELossless}
    stored = {data.SOPInstanceUID: data.pixel_array for data in back}
    assert len(stored) == len(images)
    for image in images:
        np.testing.assert_array_equal(stored[image.SOPInstanceUID], image.pixel_array)


def test_dicom_over_tls(release: Path, authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("client")
    with running(tmp_path / "orthanc", authority) as server:
        node, journal = parse_target(server.node), tmp_path / "sent.jsonl"
        done = send(release, node, certificates=Certificates(authority.file, cert, key), journal=journal)
        assert done.stored == server.count() == FILES
        once = Patience(retries=0, timeout=5.0)
        journal.unlink()
        for files in (Certificates(authority.file), Certificates(cert=cert, key=key)):
            with pytest.raises(SendIncomplete):
                send(release, node, certificates=files, patience=once, journal=journal)
        with pytest.raises(SendIncomplete):
            send(release, parse_target(server.node.replace("dicoms", "dicom")), patience=once, journal=journal)


def test_dicomweb_over_https(release: Path, server: Orthanc, authority: Authority, tmp_path: Path) -> None:
    with https_front(server.http_port, authority) as port:
        root, journal = parse_target(f"https://localhost:{port}/dicom-web"), tmp_path / "sent.jsonl"
        with pytest.raises(SendIncomplete, match="not trusted"):
            send(release, root, patience=QUICK, journal=journal)
        assert server.count() == 0
        done = send(release, root, patience=QUICK, journal=journal, certificates=Certificates(authority.file))
    assert done.stored == server.count() == FILES


def test_a_wrong_title_or_root_is_one_line(release: Path, server: Orthanc, tmp_path: Path) -> None:
    journal = tmp_path / "sent.jsonl"
    with pytest.raises(SendIncomplete, match="called AE title not recognised"):
        send(release, parse_target(server.node.replace("ORTHANC", "OTHER")), journal=journal)
    with pytest.raises(SendIncomplete, match="no DICOMweb service"):
        send(release, parse_target(server.web.replace("dicom-web", "other")), journal=journal)


def test_small_files_are_not_slower_than_a_plain_loop(release: Path, server: Orthanc) -> None:
    files = [pydicom.dcmread(path) for path in sorted(release.rglob("*.dcm"))]
    entity = AE()
    for sop_class in {data.SOPClassUID for data in files}:
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    begin = time.monotonic()
    association = entity.associate("localhost", server.dicom_port, ae_title="ORTHANC")
    assert all(association.send_c_store(data).Status == 0 for data in files)
    association.release()
    plain = time.monotonic() - begin
    with Journal(release.parent / "timed.jsonl") as journal:
        peer = DimsePeer(parse_target(server.node), "SYNTHMED", read_instances(release), 30.0, Certificates())
        begin = time.monotonic()
        deliver(release, read_instances(release), peer, journal, QUICK, print, int)
        ours = time.monotonic() - begin
        peer.close()
    (release.parent / "timed.jsonl").unlink()
    # Waiting for delayed acknowledgements, 40 ms a file, would make them equal.
    assert ours < 0.7 * plain


def start(release: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start the verb in another process."""
    command = [SYNTHMED, "send", str(release), *map(str, arguments), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lines(journal: Path, number: int, child: subprocess.Popen[str]) -> None:
    """Wait until so many files are noted as sent."""
    for _ in range(30_000):
        if journal.is_file() and journal.read_bytes().count(b"\n") >= number:
            return
        assert child.poll() is None, child.communicate()
        time.sleep(0.001)
    pytest.fail("nothing was sent")


def test_a_killed_server_and_ctrl_c_cost_nothing(tmp_path: Path, server: Orthanc) -> None:
    release = exported(tmp_path, "MR", cases=6)
    total, journal = 60, tmp_path / "sent.jsonl"
    arguments = ["--to", server.node, "--journal", journal, "--retries", 0, "--timeout", 5]

    child = start(release, *arguments)
    wait_for_lines(journal, 5, child)
    server.kill()
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 9, errors
    found = re.fullmatch(r"synthmed: dicom://\S+ [^;]+; found (\d+) of 60 files sent\. .*\n", errors)
    assert found, errors
    first = int(found[1])
    assert 5 <= first < total

    server.start()
    child = start(release, *arguments)
    wait_for_lines(journal, first + 5, child)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    second = journal.read_bytes().count(b"\n")
    assert first + 5 <= second < total

    child = start(release, *arguments)
    output, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    assert output.startswith(f"{total - second} files sent to {server.node}, {second} before. ")
    assert f"The server holds {total} of {total}, in 12 series." in output
    assert server.count() == total
