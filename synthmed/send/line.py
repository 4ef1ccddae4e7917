"""The connection below a DICOM association: tuned for many small messages, watched for silence, and broken at once."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import Any

from pynetdicom import evt

# The first byte of our own "I give up" (PS3.8, 9.3.8), which is no sign of life.
_ABORT = b"\x07"
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)  # Linux alone has it


class Line:
    """One connection, from the first attempt to its end.

    Parameters
    ----------
    timeout : float
        Seconds of silence that count as hanging; also how long one write may block.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._heard = 0.0
        self._association: Any = None

    @property
    def opened(self) -> bool:
        """Say whether the server ever accepted the connection."""
        return self._heard > 0

    def handlers(self) -> list[Any]:
        """Return pairs of an event and what pynetdicom is to call."""
        moved = [(event, self._on_data) for event in (evt.EVT_DATA_SENT, evt.EVT_DATA_RECV)]
        return [(evt.EVT_REQUESTED, self._on_request), (evt.EVT_CONN_OPEN, self._on_open), *moved]

    def silence(self) -> str:
        """Say whether the server hung or broke off, from when the last byte went either way."""
        silent = time.monotonic() - self._heard
        return f"said nothing for {silent:.2g} s" if silent >= 0.9 * self._timeout else "broke the connection off"

    def break_off(self) -> None:
        """End the connection in whatever state, so that no thread waits for it."""
        with suppress(OSError, AttributeError):
            self._association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        if self._association is not None:
            self._association.abort()

    def _on_request(self, event: Any) -> None:
        self._association = event.assoc

    def _on_open(self, event: Any) -> None:
        self._heard = time.monotonic()
        own = event.assoc.dul.socket.socket
        # A message is several small writes, each of which would wait until the last one is acknowledged.
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A server that stops reading must not block us for ever; struct timeval.
        limit = struct.pack("ll", *divmod(int(self._timeout * 1e6), 10**6))
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _on_data(self, event: Any) -> None:
        if event.data[:1] == _ABORT:
            return
        self._heard = time.monotonic()
        # Many servers answer in two writes, of which the second waits for our acknowledgement of the first. The
        # system delays that by 40 ms and forgets this setting, so that each message needs it again.
        if _QUICK_ACK is not None:
            with suppress(OSError, AttributeError):
                event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
