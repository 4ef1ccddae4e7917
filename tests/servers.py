"""Servers in this process, well or badly behaved, for the tests of sending."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmread
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRootFind
from pynetdicom.transport import ThreadedAssociationServer

AET = "ARCHIVE"
Fault = Callable[[int, Any], int | None]


@dataclass
class Archive:
    """What a server was given, and what it is to do wrong.

    Attributes
    ----------
    held : dict
        SOP Instance UID -> dataset.
    fault : callable (int, event) -> int or None
        Called with the number of the store request, from 0: a status to answer with and not store, or None.
    requests : list of str
        UIDs in the order in which they were sent.
    release : Event
        Set when the test is over, so that what hangs goes on.
    """

    fault: Fault = lambda number, event: None
    keep: Callable[[str], bool] = lambda uid: True
    held: dict[str, Dataset] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def node(self) -> str:
        return f"dicom://{AET}@127.0.0.1:{self.port}"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def take(self, data: Dataset) -> None:
        if self.keep(str(data.SOPInstanceUID)):
            self.held[str(data.SOPInstanceUID)] = data

    def in_series(self, study: str, series: str) -> list[str]:
        places = {u: (str(d.StudyInstanceUID), str(d.SeriesInstanceUID)) for u, d in self.held.items()}
        return sorted(u for u, place in places.items() if place == (study, series))


@contextmanager
def dicom_node(
    archive: Archive,
    *,
    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless),
    classes: tuple[str, ...] = (CTImageStorage, SegmentationStorage),
    find: bool = True,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Archive]:
    """Run an application entity that stores and answers queries."""

    def on_store(event: Any) -> int:
        number = len(archive.requests)
        archive.requests.append(str(event.request.AffectedSOPInstanceUID))
        status = archive.fault(number, event)
        if status is None or status & 0xF000 == 0xB000:
            data = event.dataset
            data.file_meta = event.file_meta
            archive.take(data)
        return 0 if status is None else status

    def on_find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        for uid in archive.in_series(query.StudyInstanceUID, query.SeriesInstanceUID):
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.SOPInstanceUID = "IMAGE", uid
            yield 0xFF00, answer

    def on_open(event: Any) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    entity = AE(ae_title=AET)
    entity.require_called_aet = True
    for sop_class in classes:
        entity.add_supported_context(sop_class, list(syntaxes))
    if find:
        entity.add_supported_context(StudyRootFind)
    server = entity.make_server(
        ("127.0.0.1", 0),
        evt_handlers=[(evt.EVT_C_STORE, on_store), (evt.EVT_C_FIND, on_find), (evt.EVT_CONN_OPEN, on_open)],
        ssl_context=tls,
        server_class=ThreadedAssociationServer,
    )
    archive.port = server.socket.getsockname()[1]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield archive
    finally:
        archive.release.set()
        socketserver.TCPServer.shutdown(server)  # pynetdicom's own wants a server that it started itself
        server.server_close()


@contextmanager
def web_service(archive: Archive, *, tls: ssl.SSLContext | None = None) -> Iterator[Archive]:
    """Run a DICOMweb service; a fault is an HTTP status, or 0 to break the connection off."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            number, body = len(archive.requests), self.rfile.read(int(self.headers["Content-Length"]))
            archive.requests.append(self.headers.get("Authorization", ""))
            status = archive.fault(number, body)
            if status == 0:
                self.close_connection = True
                return
            parts = _parts(body, self.headers["Content-Type"])
            if status is None:
                for data in parts:
                    archive.take(data)
            self._answer(status or 200, _stow(parts, status))

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            _, _, _, study, _, series, _ = parts.path.split("/")
            query = {k: int(v[0]) for k, v in parse_qs(parts.query).items()}
            start = query.get("offset", 0)
            page = archive.in_series(study, series)[start : start + min(query["limit"], 2)]
            self._answer(200, [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in page])

        def _answer(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    archive.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield archive
    finally:
        archive.release.set()
        server.shutdown()
        server.server_close()


def _parts(body: bytes, content_type: str) -> list[Dataset]:
    boundary = content_type.split("boundary=")[1].strip('"').encode()
    pieces = body.split(b"\r\n--" + boundary)[1:-1]
    return [dcmread(BytesIO(piece.split(b"\r\n\r\n", 1)[1])) for piece in pieces]


def _stow(parts: list[Dataset], status: int | None) -> dict[str, Any]:
    """Return the answer to a store request (PS3.18, table 10.5.3-2)."""
    items: list[dict[str, Any]] = [
        {"00081155": {"vr": "UI", "Value": [str(d.SOPInstanceUID)]}}
        | ({} if status is None else {"00081197": {"vr": "US", "Value": [0xC000 if status == 409 else 0xA700]}})
        for d in parts
    ]
    return {("00081199" if status is None else "00081198"): {"vr": "SQ", "Value": items}}


@contextmanager
def silent_port() -> Iterator[int]:
    """Listen, accept, and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def proxy(port: int, after: int, *, stall: bool) -> Iterator[int]:
    """Forward the first connection to `port`; after that many bytes stop reading (`stall`) or break it off."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        # While we still live, nobody else can connect: a second attempt is refused.
        listener.close()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()
            left = after
            while left > 0 and (data := client.recv(min(left, 65536))):
                server.sendall(data)
                left -= len(data)
            if stall:
                over.wait()
            # A socket that `_pump` is waiting at stays open when it is closed here, and the server would wait for ever.
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.close()
        thread.join(5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        return
