"""STOW-RS and QIDO-RS with dicomweb-client.

References
----------
DICOM PS3.18, 10.5 (store) and 10.6 (search).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, TypeVar

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset, dcmread

from synthmed.errors import ConfigError
from synthmed.send.instances import Instance
from synthmed.send.peers import Dropped, Refused, Say, connection_error
from synthmed.send.targets import Certificates, WebRoot
from synthmed.words import counted

T = TypeVar("T")
USER, PASSWORD = "SYNTHMED_SEND_USER", "SYNTHMED_SEND_PASSWORD"
_BATCH_BYTES = 4 * 2**20
_PAGE = 100
_ALWAYS_WHOLE = 2**62
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_MEANING = {
    401: f"asks for a user and password; set {USER} and {PASSWORD}, or ~/.netrc",
    403: "forbids this user to store or to search",
    404: "has no DICOMweb service at this address",
    405: "has no DICOMweb service at this address",
    409: "stored none of the files",
    413: "takes no file of this size",
    415: "does not take DICOM files",
    507: "is out of space",
}


class WebPeer:
    """A DICOMweb service.

    Parameters
    ----------
    root : WebRoot
    timeout : float
        Seconds of silence that count as hanging.
    certificates : Certificates
        Used if the address is https.
    say : callable
        Takes a warning about a password that travels unencrypted.
    """

    def __init__(self, root: WebRoot, timeout: float, certificates: Certificates, say: Say) -> None:
        self.batch_bytes = _BATCH_BYTES
        self._timeout = timeout
        self._session = _session(root, certificates, say)
        # Whole bodies with a length, never chunks: many servers and proxies take nothing else.
        self._client = DICOMwebClient(root.url, self._session, chunk_size=_ALWAYS_WHOLE, timeout=timeout)
        self._client.set_http_retry_params(retry=False)
        self._client.host = root.netloc

    def store(self, batch: Sequence[Instance], contents: Sequence[bytes]) -> list[str]:
        """Send the files in one request, or in halves to a server that finds it too large; see `Peer`."""
        if len(batch) > 1 and sum(i.size for i in batch) > self.batch_bytes:
            return self._store_halves(batch, contents)
        try:
            answer = self._ask(lambda: self._client.store_instances([dcmread(BytesIO(c)) for c in contents]))
        except _TooLarge:
            if len(batch) == 1:
                raise Refused(f"{_http(413)} ({batch[0].file}, {batch[0].size / 2**20:.3g} MiB)") from None
            self.batch_bytes = sum(i.size for i in batch) // 2
            return self._store_halves(batch, contents)
        failures = _failures(answer)
        if failures:
            raise _failed(failures)
        reasons = [item.get("WarningReason") for item in answer.get("ReferencedSOPSequence", None) or ()]
        return [f"stored with warning 0x{int(reason):04X}" for reason in reasons if reason]

    def _store_halves(self, batch: Sequence[Instance], contents: Sequence[bytes]) -> list[str]:
        half = len(batch) // 2
        return self.store(batch[:half], contents[:half]) + self.store(batch[half:], contents[half:])

    def stored(self, study: str, series: str) -> set[str]:
        """Search page by page until a page brings nothing new; see `Peer`."""
        found: set[str] = set()
        seen = 0
        while True:
            page = self._ask(
                lambda offset=seen: self._client.search_for_instances(study, series, limit=_PAGE, offset=offset)  # type: ignore[misc]
            )
            new = {str(item["00080018"]["Value"][0]) for item in page if "00080018" in item} - found
            if not new:
                return found
            found |= new
            seen += len(page)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _ask(self, action: Callable[[], T]) -> T:
        """Call `action` and put every failure in words: `Dropped` or `Refused`."""
        try:
            return action()
        except requests.HTTPError as error:
            raise _http_error(error.response) from error
        except requests.TooManyRedirects as error:
            raise Refused("redirects to another address; give that one with --to") from error
        except (requests.RequestException, OSError) as error:
            raise connection_error(error, self._timeout) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"does not answer as a DICOMweb service does ({' '.join(str(error).split())})") from error


class _TooLarge(Exception):
    """The server answered 413."""


class _Session(requests.Session):
    """A session whose own authority is not overruled by REQUESTS_CA_BUNDLE."""

    def merge_environment_settings(self, *arguments: Any, **named: Any) -> Any:
        settings = super().merge_environment_settings(*arguments, **named)
        return settings | ({"verify": self.verify} if isinstance(self.verify, str) else {})


def _session(root: WebRoot, certificates: Certificates, say: Say) -> requests.Session:
    """Return a session that trusts, identifies itself and never follows a redirect with the data."""
    session = _Session()
    session.max_redirects = 0
    if root.tls:
        certificates.context()
        if certificates.ca is not None:
            session.verify = str(certificates.ca)
        if certificates.cert is not None:
            session.cert = (str(certificates.cert), str(certificates.key))
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if (user is None) != (password is None):
        raise ConfigError(f"{USER} and {PASSWORD} go together", found=f"only {USER if user else PASSWORD}")
    if user is not None and password is not None:
        session.auth = (user, password)
        if not root.tls:
            say(f"The password goes to {root} unencrypted")
    return session


def _http_error(response: requests.Response | None) -> Exception:
    if response is None:
        return Dropped("gave no answer")
    code = response.status_code
    if code == 413:
        return _TooLarge()
    if code in _BUSY:
        return Dropped(_http(code))
    if code == 409:
        failures = _failures(_body(response))
        return _failed(failures) if failures else Refused(_http(code), duplicate=True)
    return Refused(_http(code))


def _http(code: int) -> str:
    return f"{_MEANING.get(code, 'did not take the request')} (HTTP {code})"


def _body(response: requests.Response) -> Dataset:
    try:
        return Dataset.from_json(response.json())
    except (ValueError, KeyError, TypeError, AttributeError):
        return Dataset()


def _failures(answer: Dataset) -> list[tuple[str, int]]:
    """Return the UID and the reason (PS3.18, table I.2-2) of each file that was not stored."""
    items: Sequence[Any] = answer.get("FailedSOPSequence", None) or ()
    return [(str(i.get("ReferencedSOPInstanceUID", "?")), int(i.get("FailureReason", 0) or 0)) for i in items]


def _failed(failures: Sequence[tuple[str, int]]) -> Exception:
    uid, reason = failures[0]
    line = f"did not store {counted(len(failures), 'file')}, such as {uid}: failure reason 0x{reason:04X}"
    if 0xA700 <= reason <= 0xA7FF:
        return Dropped(f"is out of resources; it {line}")
    return Refused(line, duplicate=True)
