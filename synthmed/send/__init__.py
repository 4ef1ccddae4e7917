"""Send a release to a PACS or a DICOMweb service: verified files only, resumed where it stopped, counted at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from synthmed.errors import SendIncomplete, VerificationFailed
from synthmed.export import Finding, verify
from synthmed.send.delivery import Inventory, deliver, take_inventory
from synthmed.send.instances import Instance, read_instances
from synthmed.send.journal import Journal, check_outside, journal_path
from synthmed.send.peers import Dropped, Patience, Peer, Refused, Say
from synthmed.send.targets import Certificates, DicomNode, Target, check_title, parse_target
from synthmed.words import counted

__all__ = ["Certificates", "Patience", "Sent", "parse_target", "send"]

CALLING = "SYNTHMED"


@dataclass(frozen=True)
class Sent:
    """What a finished `send` did.

    Attributes
    ----------
    sent, before : int
        Files sent now, and files that the journal says were sent by an earlier run.
    stored : int
        Files that the server lists: exactly those of the release.
    series : int
        Series that they form.
    remarks : Counter of str
        What the server said about files that it did store.
    journal : Path
        Where the progress is kept.
    """

    sent: int
    before: int
    stored: int
    series: int
    remarks: Counter[str]
    journal: Path


def send(
    release: Path,
    target: Target,
    *,
    certificates: Certificates = Certificates(),
    calling: str = CALLING,
    patience: Patience = Patience(),
    journal: Path | None = None,
    progress: bool = False,
    say: Say = lambda line: None,
    key: Path | None = None,
    check: Callable[[Path, Path | None], Sequence[Finding]] = verify,
) -> Sent:
    """Send every DICOM file of a verified release, and hold the server's own list against it.

    Parameters
    ----------
    release : Path
        What ``synthmed export`` wrote. It is read only.
    target : DicomNode or WebRoot
        What `parse_target` returned.
    certificates, patience
        For an encrypted target; retries and time-outs.
    calling : str
        Our application entity title, for a DICOM node.
    journal : Path, optional
        Where the progress is kept; by default beside the release, one file a target.
    progress, say
        Show a bar; what takes lines about retries.
    key : Path, optional
        The public key that must have signed the release.
    check : callable (release, key) -> sequence of Finding
        What must find nothing before anything is sent.

    Raises
    ------
    VerificationFailed
        On any finding, or if a file changes meanwhile.
    ConfigError
        If the release holds no DICOM or the settings cannot be followed.
    SendIncomplete
        If the server refused, hung or broke off, or does not list exactly what was sent.
    StorageError
        If the journal cannot be written.
    """
    certificates.check(target)
    check_title(calling)
    _refuse(check(release, key), release, key)
    instances = read_instances(release)
    path = journal if journal is not None else journal_path(release, target)
    check_outside(path, release)
    peer = _peer(target, calling, instances, patience, certificates, say)
    try:
        with Journal(path) as notes:
            return _send(release, instances, target, peer, notes, patience, progress, say)
    finally:
        peer.close()


def _refuse(findings: Sequence[Finding], release: Path, key: Path | None) -> None:
    if findings:
        more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
        option = f" --key {key}" if key is not None else ""
        next_step = f"See them all with: synthmed verify {release}{option}"
        raise VerificationFailed("Nothing was sent", found=f"{findings[0]}{more}", next_step=next_step)


def _peer(
    target: Target,
    calling: str,
    instances: Sequence[Instance],
    patience: Patience,
    certificates: Certificates,
    say: Say,
) -> Peer:
    if isinstance(target, DicomNode):
        from synthmed.send.dimse import DimsePeer

        return DimsePeer(target, calling, instances, patience.timeout, certificates)
    from synthmed.send.web import WebPeer

    return WebPeer(target, patience.timeout, certificates, say)


def _send(
    release: Path,
    instances: Sequence[Instance],
    target: Target,
    peer: Peer,
    notes: Journal,
    patience: Patience,
    progress: bool,
    say: Say,
) -> Sent:
    before = sum(instance in notes for instance in instances)
    try:
        with tqdm(total=len(instances), initial=before, unit="file", disable=not progress, leave=False) as bar:
            remarks = deliver(release, instances, peer, notes, patience, say, bar.update)
        inventory = take_inventory(instances, peer, patience, say)
    except (Dropped, Refused) as error:
        raise _incomplete(f"{target} {error}", instances, notes) from error
    except KeyboardInterrupt:
        say(f"sent so far: {sum(i in notes for i in instances)} of {counted(len(instances), 'file')}")
        raise
    _check_inventory(inventory, instances, target, notes)
    return Sent(len(instances) - before, before, inventory.stored, inventory.series, remarks, notes.path)


def _incomplete(what: str, instances: Sequence[Instance], notes: Journal) -> SendIncomplete:
    done = sum(instance in notes for instance in instances)
    return SendIncomplete(
        what,
        found=f"{done} of {counted(len(instances), 'file')} sent",
        next_step="Once that is put right, the same command goes on from there",
    )


def _check_inventory(inventory: Inventory, instances: Sequence[Instance], target: Target, notes: Journal) -> None:
    if inventory.missing:
        notes.forget(inventory.missing)
        raise SendIncomplete(
            f"{target} confirmed all files and does not hold them all",
            found=f"{len(instances) - len(inventory.missing)}, without {inventory.missing[0].file}",
            expected=counted(len(instances), "file"),
            next_step="The same command sends what is missing again",
        )
    if inventory.stored != len(instances):
        raise SendIncomplete(
            f"{target} holds more in these series than the release does",
            found=counted(inventory.stored, "file"),
            expected=f"{len(instances)}",
            next_step="Have the server's administrator look at these series: something else was stored into them",
        )
