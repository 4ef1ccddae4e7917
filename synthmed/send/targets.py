"""Where a release is sent: an address as the user writes it, and the certificates that go with it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from synthmed.errors import ConfigError

_EXPECTED = "dicom://AET@host:port, dicoms://AET@host:port, or https://host/dicom-web"
_NO_SECRETS = "Put user and password into SYNTHMED_SEND_USER and SYNTHMED_SEND_PASSWORD, or into ~/.netrc"


@dataclass(frozen=True)
class DicomNode:
    """An application entity that takes C-STORE.

    Attributes
    ----------
    aet : str
        Its title, at most 16 characters (DICOM PS3.5, VR AE).
    host : str
        Name or address, without brackets.
    port : int
    tls : bool
        Whether the connection is encrypted (DICOM PS3.15, annex B).
    """

    aet: str
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'dicoms' if self.tls else 'dicom'}://{self.aet}@{host}:{self.port}"


@dataclass(frozen=True)
class WebRoot:
    """The root of a DICOMweb service (DICOM PS3.18), such as ``https://host/dicom-web``.

    Attributes
    ----------
    url : str
        Without a slash at its end.
    netloc : str
        Host, and port where one is written.
    tls : bool
    """

    url: str
    netloc: str
    tls: bool

    def __str__(self) -> str:
        return self.url


Target = DicomNode | WebRoot


@dataclass(frozen=True)
class Certificates:
    """What TLS trusts and shows; all are PEM files.

    Attributes
    ----------
    ca : Path, optional
        Authorities to trust instead of the system's.
    cert, key : Path, optional
        The client's certificate and its private key, for servers that ask for one.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def check(self, target: Target) -> None:
        """Raise `ConfigError` unless the files are there, belong together and are of use for `target`."""
        given = [file for file in (self.ca, self.cert, self.key) if file is not None]
        if given and not target.tls:
            raise ConfigError(
                f"{given[0]} is of no use: {target} is not encrypted",
                next_step="Write dicoms:// or https://, or add --tls to a dicom:// address",
            )
        missing = [file for file in given if not file.is_file()]
        if missing:
            raise ConfigError(f"There is no file {missing[0]}", expected="certificates and keys in PEM format")
        if (self.cert is None) != (self.key is None):
            raise ConfigError("A client's certificate and its key go together", expected="both --cert and --client-key")

    def context(self) -> ssl.SSLContext:
        """Return the client's side of TLS: the server's certificate and name are always checked.

        Raises
        ------
        ConfigError
            If a file is not what it should be.
        """
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password=_no_pass_phrase)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                "The certificates cannot be used",
                found=" ".join(str(error).split()),
                expected="PEM files, the key belonging to the certificate",
            ) from error
        return context


def parse_target(text: str, *, tls: bool = False) -> Target:
    """Parse an address.

    Parameters
    ----------
    text : str
        ``dicom://AET@host:port``, ``dicoms://AET@host:port``, or the root of a DICOMweb service.
    tls : bool
        Encrypt a ``dicom://`` connection, as ``dicoms://`` does.

    Raises
    ------
    ConfigError
        If it is not an address, names no application entity or port, or carries a password.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _unusable("an address that cannot be read") from error
    if parts.password is not None or (parts.scheme in {"http", "https"} and "@" in parts.netloc):
        raise ConfigError("An address must not carry a user or password", next_step=_NO_SECRETS)
    if not parts.hostname or parts.query or parts.fragment:
        raise _unusable(text)
    if parts.scheme in {"dicom", "dicoms"}:
        return _dicom_node(text, parts, port, tls or parts.scheme == "dicoms")
    if parts.scheme in {"http", "https"}:
        return _web_root(parts, tls)
    raise _unusable(text)


def _dicom_node(text: str, parts: SplitResult, port: int | None, tls: bool) -> DicomNode:
    title = unquote(parts.username or "")
    if not title or parts.path.strip("/") or port is None or parts.hostname is None:
        raise _unusable(text)
    return DicomNode(check_title(title), parts.hostname, port, tls)


def check_title(title: str) -> str:
    """Return a usable application entity title; raise `ConfigError` where it is not one (DICOM PS3.5, VR AE)."""
    if not title.strip() or len(title) > 16 or "\\" in title or not (title.isascii() and title.isprintable()):
        raise ConfigError(
            "That is no application entity title", found=repr(title), expected="1 to 16 ASCII characters, no backslash"
        )
    return title.strip()


def _web_root(parts: SplitResult, tls: bool) -> WebRoot:
    if tls and parts.scheme == "http":
        raise ConfigError("--tls and an http:// address exclude each other", next_step="Write https://")
    return WebRoot(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", parts.netloc, parts.scheme == "https")


def _unusable(found: str) -> ConfigError:
    return ConfigError("There is nowhere to send to", found=found, expected=_EXPECTED)


def _no_pass_phrase() -> str:
    raise ConfigError("The client's key is encrypted", expected="a key without a pass phrase, readable by you alone")
