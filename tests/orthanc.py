"""A real Orthanc with its DICOMweb plugin, run in a folder of its own on free ports, for the tests of sending."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from certificates import Authority
from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PROGRAM = shutil.which("Orthanc") or (shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin"))
MISSING = "" if PROGRAM and PLUGIN.is_file() else "Orthanc and its DICOMweb plugin are not installed"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Orthanc:
    """One server; `start` and `kill` it as often as a test likes, what it stored stays.

    Attributes
    ----------
    folder : Path
        Its configuration, storage and log.
    authority : Authority, optional
        With one, DICOM is encrypted and asks for a client's certificate.
    """

    folder: Path
    authority: Authority | None = None
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def node(self) -> str:
        return f"dicom{'s' if self.authority else ''}://ORTHANC@localhost:{self.dicom_port}"

    @property
    def web(self) -> str:
        return f"http://localhost:{self.http_port}/dicom-web"

    def start(self) -> None:
        """Start it and wait until it listens."""
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self._configuration()))
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen([str(PROGRAM), str(file)], stdout=log, stderr=log)
        for port in (self.http_port, self.dicom_port):
            self._wait_for(port)

    def _configuration(self) -> dict[str, object]:
        storage = str(self.folder / "storage")
        settings: dict[str, object] = {
            "Name": "test",
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "Plugins": [str(PLUGIN)],
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowFind": True,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
        }
        if self.authority is not None:
            cert, key = self.authority.issue("orthanc")
            settings |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(cert),
                "DicomTlsPrivateKey": str(key),
                "DicomTlsTrustedCertificates": str(self.authority.file),
                "DicomTlsRemoteCertificateRequired": True,
            }
        return settings

    def _wait_for(self, port: int) -> None:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if self.process is None or self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError((self.folder / "log.txt").read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)

    def retrieve(self, study: str, series: str) -> list[Dataset]:
        """Read a series back with WADO-RS, in the transfer syntax that it is stored in."""
        client = DICOMwebClient(self.web, timeout=60)
        return client.retrieve_series(study, series, media_types=(("application/dicom", "*"),))

    def count(self) -> int:
        """Return how many instances it holds, by its own count."""
        import requests

        return int(requests.get(f"http://localhost:{self.http_port}/statistics", timeout=30).json()["CountInstances"])


@contextmanager
def running(folder: Path, authority: Authority | None = None) -> Iterator[Orthanc]:
    """Run a new Orthanc in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Orthanc(folder, authority)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def https_front(port: int, authority: Authority) -> Iterator[int]:
    """Put TLS before an HTTP port of this machine, as a reverse proxy does, and yield the encrypted port.

    The Orthanc of Debian 12 itself ends with a segmentation fault at its first HTTPS connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("front"))
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):
                plain, _ = listener.accept()
                threading.Thread(target=forward, args=(plain,), daemon=True).start()

    def forward(plain: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(plain, server_side=True) as client,
            socket.create_connection(("127.0.0.1", port)) as server,
        ):
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            server.shutdown(socket.SHUT_WR)
            back.join(30)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        over.set()
        listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
