"""C-STORE and C-FIND with pynetdicom: one association, opened when it is needed and again after it broke.

References
----------
DICOM PS3.4, annex B (storage) and C (query); PS3.7, annex C (status codes); PS3.8, 9.3.4 (rejections).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRootFind  # type: ignore[attr-defined]

from synthmed.send.instances import Instance
from synthmed.send.line import Line
from synthmed.send.peers import Dropped, Refused, why_no_connection
from synthmed.send.targets import Certificates, DicomNode

# What a busy server says: "out of resources" (storage) and "processing failure" (PS3.7, C.5.7).
_BUSY = frozenset({0x0110, *range(0xA700, 0xA800)})
_DUPLICATE = 0x0111
_PENDING = (0xFF00, 0xFF01)
_SLOWEST = 2**20
_MOST_CONTEXTS = 128


class DimsePeer:
    """A DICOM node.

    Parameters
    ----------
    node : DicomNode
    calling : str
        Our own title, which many servers must know.
    instances : sequence of Instance
        All that will be stored: their SOP classes are negotiated, each in the transfer syntaxes of its files.
    timeout : float
        Seconds of silence that count as hanging; a large file has a second more for each MiB.
    certificates : Certificates
        Used if the node is encrypted.
    """

    batch_bytes = 0

    def __init__(
        self, node: DicomNode, calling: str, instances: Sequence[Instance], timeout: float, certificates: Certificates
    ) -> None:
        self._node, self._timeout = node, timeout
        self._needed = sorted({(i.sop_class, i.syntax) for i in instances})
        self._context = certificates.context() if node.tls else None
        self._entity = AE(ae_title=calling)
        self._entity.acse_timeout = self._entity.dimse_timeout = timeout
        self._entity.network_timeout = self._entity.connection_timeout = timeout
        self._association: Association | None = None
        self._line, self._purpose = Line(timeout), ""

    def store(self, batch: Sequence[Instance], contents: Sequence[bytes]) -> list[str]:
        """Send each file with C-STORE; see `Peer`."""
        remarks = []
        for instance, content in zip(batch, contents, strict=True):
            association = self._open("store")
            association.dimse_timeout = self._timeout + instance.size / _SLOWEST
            with _Aborting(self):
                status = _store(association, dcmread(BytesIO(content)))
                if "Status" not in status:
                    raise Dropped(self._line.silence())
            remarks += _judge(status)
        return remarks

    def stored(self, study: str, series: str) -> set[str]:
        """Ask with C-FIND at the image level; see `Peer`."""
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study, series, ""
        association = self._open("find")
        with _Aborting(self):
            return self._find(association, query)

    def close(self) -> None:
        """Release the association, or abort it where that fails."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with suppress(RuntimeError):
                association.release()
        if association is not None and not association.is_released:
            association.abort()

    def abort(self) -> None:
        """Break the association off."""
        association, self._association = self._association, None
        if association is not None:
            association.abort()

    def _find(self, association: Association, query: Dataset) -> set[str]:
        found = set()
        try:
            for status, answer in association.send_c_find(query, StudyRootFind):
                code = status.get("Status")
                if code is None:
                    raise Dropped(self._line.silence())
                if code in _PENDING and answer is not None:
                    found.add(str(answer.get("SOPInstanceUID", "")))
                elif code != 0:
                    raise Refused(f"answered the query (C-FIND) with status {_named(status)}")
        except RuntimeError as error:
            raise Dropped("broke the connection off") from error
        return found

    def _open(self, purpose: str) -> Association:
        if self._association is not None and self._association.is_established and self._purpose == purpose:
            return self._association
        self.close()
        contexts = [build_context(StudyRootFind)] if purpose == "find" else _contexts(self._needed)
        association = self._associate(contexts)
        self._association, self._purpose = association, purpose
        if purpose == "find":
            return association
        lacking = [pair for pair in self._needed if not _accepts(association, *pair)]
        if lacking:
            self.close()
            raise Refused(_does_not_take(*lacking[0]))
        return association

    def _associate(self, contexts: list[PresentationContext]) -> Association:
        node, tls = self._node, None if self._context is None else (self._context, self._node.host)
        self._line = Line(self._timeout)
        try:
            association = self._entity.associate(
                node.host,
                node.port,
                contexts=contexts,
                ae_title=node.aet,
                tls_args=tls,
                evt_handlers=self._line.handlers(),
            )
        except OSError as error:
            raise why_no_connection(node.host, node.port, self._timeout, self._context) from error
        except BaseException:
            self._line.break_off()
            raise
        if association.is_established:
            return association
        if not self._line.opened:
            raise why_no_connection(node.host, node.port, self._timeout, self._context)
        raise self._no_association(association)

    def _no_association(self, association: Association) -> Exception:
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            kind = Dropped if answer.result == 2 else Refused
            reason = f"{answer.reason_str[:1].lower()}{answer.reason_str[1:]}"
            return kind(f"rejected the association of {self._entity.ae_title} with {self._node.aet}: {reason}")
        if association.rejected_contexts:
            syntax = association.rejected_contexts[0]
            if syntax.abstract_syntax == StudyRootFind:
                return Refused("does not answer queries (C-FIND), so that what it stores cannot be counted")
            return Refused(_does_not_take(str(syntax.abstract_syntax), str(syntax.transfer_syntax[0])))
        reason = self._line.silence()
        association.abort()
        return Dropped(reason)


class _Aborting:
    """Abort the association of a peer when anything but success or a refusal leaves the block."""

    def __init__(self, peer: DimsePeer) -> None:
        self._peer = peer

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Refused):
            self._peer.abort()


def _contexts(needed: Sequence[tuple[str, str]]) -> list[PresentationContext]:
    """Return one context a SOP class and syntax, and the default syntax beside uncompressed ones (PS3.5, 10.1)."""
    pairs = dict.fromkeys(needed)
    for sop_class, syntax in needed:
        if not UID(syntax).is_compressed:
            pairs[sop_class, str(ImplicitVRLittleEndian)] = None
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs][:_MOST_CONTEXTS]


def _accepts(association: Association, sop_class: str, syntax: str) -> bool:
    accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    converted = not UID(syntax).is_compressed and (sop_class, str(ImplicitVRLittleEndian)) in accepted
    return converted or (sop_class, syntax) in accepted


def _does_not_take(sop_class: str, syntax: str) -> str:
    hint = "; a release without compression may be taken" if UID(syntax).is_compressed else ""
    return f"does not take {UID(sop_class).name} in {UID(syntax).name}{hint}"


def _store(association: Association, dataset: Dataset) -> Dataset:
    try:
        return association.send_c_store(dataset)
    except RuntimeError as error:
        raise Dropped("broke the connection off") from error


def _judge(status: Dataset) -> list[str]:
    """Return the remark of a warning, none for success; raise for a failure."""
    code = status.Status
    if code == 0:
        return []
    if code in (0x0001, 0x0107, 0x0116) or 0xB000 <= code <= 0xBFFF:
        return [f"stored with status {_named(status)}"]
    if code in _BUSY:
        raise Dropped(f"is out of resources: status {_named(status)}")
    raise Refused(f"answered with status {_named(status)}", duplicate=code == _DUPLICATE)


def _named(status: Dataset) -> str:
    comment = str(status.get("ErrorComment", "") or "")
    return f"0x{status.Status:04X}" + (f" ({comment})" if comment else "")
