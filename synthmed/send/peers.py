"""What a server is to the delivery: something that takes files and says what it holds."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from synthmed.send.instances import Instance

T = TypeVar("T")
Say = Callable[[str], None]


class Dropped(Exception):
    """The server did not answer, broke off or is busy: worth another try."""


class Refused(Exception):
    """The server said no, and will say so again.

    Parameters
    ----------
    reason : str
        In words.
    duplicate : bool
        Whether the answer may mean that the server holds these files already.
    """

    def __init__(self, reason: str, *, duplicate: bool = False) -> None:
        super().__init__(reason)
        self.duplicate = duplicate


class Peer(Protocol):
    """A server.

    Attributes
    ----------
    batch_bytes : int
        How much it takes in one request; a file that is larger goes alone.
    """

    batch_bytes: int

    def store(self, batch: Sequence[Instance], contents: Sequence[bytes]) -> list[str]:
        """Store files, all or none, and return what the server remarked; raise `Dropped` or `Refused`."""

    def stored(self, study: str, series: str) -> set[str]:
        """Return the SOP Instance UIDs that the server holds of a series; raise `Dropped` or `Refused`."""

    def close(self) -> None:
        """End the connection, whatever its state."""


@dataclass(frozen=True)
class Patience:
    """How long to wait and how often to try.

    Attributes
    ----------
    retries : int
        Further attempts after a failure; counted anew after each success.
    timeout : float
        Seconds of silence after which a server counts as hanging.
    first_wait, longest_wait : float
        Seconds before the first retry, doubled each time, and their bound.
    """

    retries: int = 4
    timeout: float = 30.0
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait before retry number `attempt`, from 0."""
        return float(min(self.first_wait * 2.0**attempt, self.longest_wait))


def persist(action: Callable[[], T], patience: Patience, say: Say) -> T:
    """Call `action` until it succeeds, is refused, or has been dropped once more than `patience` allows."""
    for attempt in range(patience.retries):
        try:
            return action()
        except Dropped as error:
            wait = patience.wait(attempt)
            say(f"The server {error}; trying again in {wait:g} s ({attempt + 1} of {patience.retries})")
            time.sleep(wait)
    return action()


def why_no_connection(host: str, port: int, timeout: float, context: ssl.SSLContext | None) -> Exception:
    """Connect once more, only to learn why it fails, and return that as `Refused` (certificates) or `Dropped`."""
    try:
        with socket.create_connection((host, port), timeout) as plain:
            if context is not None:
                context.wrap_socket(plain, server_hostname=host).close()
    except OSError as error:
        return connection_error(error, timeout)
    return Dropped("broke the connection off")


def connection_error(error: BaseException, timeout: float) -> Exception:
    """Return a failure of the network in words: `Refused` if the certificate is at fault, else `Dropped`."""
    chain: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is not None and link not in chain:
            chain.append(link)
            todo += [link.__cause__, link.__context__, *(a for a in link.args if isinstance(a, BaseException))]
            todo.append(getattr(link, "reason", None) if isinstance(getattr(link, "reason", None), Exception) else None)
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return Refused(f"shows a certificate that is not trusted ({link.verify_message}); --ca names the authority")
    for kind, words in _WORDS:
        if any(isinstance(link, kind) for link in chain):
            return Dropped(words.format(timeout=timeout))
    return Dropped(f"cannot be reached ({' '.join(str(chain[-1]).split())})")


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "refused the connection: nothing listens there"),
    (socket.gaierror, "cannot be found: no host of that name"),
    (ssl.SSLError, "does not complete the TLS handshake"),
    (TimeoutError, "said nothing for {timeout:g} s"),
    (ConnectionError, "broke the connection off"),
)
