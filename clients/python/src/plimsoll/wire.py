"""Varlink as it goes over a socket: JSON messages that end with a zero byte, on one connection one call at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Optional

from .errors import ControlError, PlimsollError

INTERFACE = "dev.plimsoll.Control"
DEFAULT_SOCKET = "/run/plimsoll/control.sock"
#: A controller says nothing longer. What is longer comes from somebody else.
LARGEST = 1 << 20

Parameters = dict[str, Any]


class Garbled(PlimsollError):
    """What came over the socket is no Varlink."""


def socket_path(path: Optional[str] = None) -> Optional[str]:
    """The controller's socket: as given, from ``PLIMSOLL_CONTROL``, or the default; None where it is ``none``."""
    chosen = path if path is not None else os.environ.get("PLIMSOLL_CONTROL", DEFAULT_SOCKET)
    return None if chosen in ("", "none") else chosen


def encode(method: str, parameters: Mapping[str, Any], *, more: bool = False, oneway: bool = False) -> bytes:
    """One call. Parameters that are None are left out."""
    call: Parameters = {
        "method": f"{INTERFACE}.{method}",
        "parameters": {name: value for name, value in parameters.items() if value is not None},
    }
    if more:
        call["more"] = True
    if oneway:
        call["oneway"] = True
    return json.dumps(call, separators=(",", ":")).encode() + b"\0"


class Decoder:
    """Cuts what comes in into replies."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Parameters]:
        """The parameters of the replies that are complete now.

        Raises ControlError for the first one that is an error, and Garbled for what is no reply.
        """
        self._pending += data
        *whole, rest = self._pending.split(b"\0")
        if len(rest) > LARGEST:
            raise Garbled(f"a message of more than {LARGEST} bytes")
        self._pending = bytearray(rest)
        return [_reply(bytes(message)) for message in whole]


def _reply(message: bytes) -> Parameters:
    try:
        reply = json.loads(message)
    except ValueError as error:
        raise Garbled(f"not JSON: {error}") from None
    parameters = reply.get("parameters", {}) if isinstance(reply, dict) else None
    if not isinstance(parameters, dict):
        raise Garbled("a reply without parameters")
    if "error" in reply:
        raise ControlError(str(reply["error"]), parameters)
    return parameters


class Connection:
    """A connected client. Every wait has an end; ``abort`` ends one from another thread."""

    def __init__(self, path: str, patience: float = 5.0) -> None:
        """Connects within ``patience`` seconds, or raises OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._decoder = Decoder()
        self._ready: list[Parameters] = []
        self._patience = patience
        try:
            self._socket.settimeout(patience)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, method: str, parameters: Mapping[str, Any], *, more: bool = False, oneway: bool = False) -> None:
        """Sends a call and does not wait for the answer."""
        self._socket.settimeout(self._patience)
        self._socket.sendall(encode(method, parameters, more=more, oneway=oneway))

    def call(self, method: str, parameters: Optional[Mapping[str, Any]] = None, *, wait: float = 0.0) -> Parameters:
        """Sends a call and returns the answer. It may take ``wait`` seconds longer than the patience.

        Raises ControlError for an error of the controller, OSError or Garbled where the connection is of no more use.
        """
        self.send(method, parameters or {})
        end = time.monotonic() + self._patience + wait
        while not self._ready:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer to {method}")
            self._socket.settimeout(left)
            self._receive()
        return self._ready.pop(0)

    def arrived(self) -> list[Parameters]:
        """The replies that are there, after select said so."""
        self._socket.settimeout(self._patience)
        self._receive()
        ready, self._ready = self._ready, []
        return ready

    def waiting(self) -> list[Parameters]:
        """The replies that came together with the answer to a call."""
        ready, self._ready = self._ready, []
        return ready

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the controller hung up")
        self._ready += self._decoder.feed(data)

    def abort(self) -> None:
        """Ends whatever waits on this connection, in whichever thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """What was reserved here and not committed is given back."""
        self._socket.close()


def once(
    path: Optional[str],
    method: str,
    parameters: Optional[Mapping[str, Any]] = None,
    *,
    patience: float = 5.0,
) -> Optional[Parameters]:
    """One call on a connection of its own; None where no controller answers.

    A connection for each call costs some 0.1 ms, and leaves nothing that a restart of the controller or a fork of this
    process could break.
    """
    if path is None:
        return None
    try:
        with Connection(path, patience) as connection:
            return connection.call(method, parameters)
    except (OSError, Garbled):
        return None
