"""An agent that is not one: it answers what a test says, and keeps what it was asked."""

from __future__ import annotations

import json
import keyword
import os
import socket
import struct
import tempfile
import threading
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Type

Behaviour = Callable[["Talk"], None]


def arguments(params: Dict[str, Any]) -> Dict[str, Any]:
    """Parameters as the functions take them: a word of the language has an underscore behind it."""
    return {f"{name}_" if keyword.iskeyword(name) else name: value for name, value in params.items()}


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


class Talk:
    """One connection, as the server sees it."""

    def __init__(self, server: "FakeAgent", sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        #: 0 for the first connection.
        self.number = number

    def read(self) -> Optional[Dict[str, Any]]:
        """The next request; ``None`` at the end."""
        header = self._exactly(4)
        if header is None:
            return None
        payload = self._exactly(struct.unpack(">I", header)[0])
        if payload is None:
            return None
        request: Dict[str, Any] = json.loads(payload)
        self.server.requests.append(request)
        return request

    def _exactly(self, length: int) -> Optional[bytes]:
        data = bytearray()
        while len(data) < length:
            got = self.sock.recv(length - len(data))
            if not got:
                return None
            data += got
        return bytes(data)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def succeed(self, request: Dict[str, Any], **fields: Any) -> None:
        answer = {"ok": True, "output": "", "id": request.get("id"), **fields}
        self.send(frame(json.dumps(answer).encode()))

    def hang(self) -> None:
        """Until the client has gone, or the test is over."""
        try:
            while self.sock.recv(1 << 16):
                pass
        except OSError:
            pass


def polite(talk: Talk) -> None:
    while True:
        request = talk.read()
        if request is None:
            return
        talk.succeed(request)


def answering(*payloads: bytes) -> Behaviour:
    """Sends these frames for the first request, then waits for the client to go."""

    def behave(talk: Talk) -> None:
        talk.read()
        for payload in payloads:
            talk.send(frame(payload))
        talk.hang()

    return behave


class FakeAgent:
    """Serves every connection in a thread of its own until the ``with`` block ends."""

    def __init__(self, behaviour: Behaviour = polite) -> None:
        self._behaviour = behaviour
        self.requests: List[Dict[str, Any]] = []
        self.connections = 0
        self._open: List[socket.socket] = []

    def __enter__(self) -> "FakeAgent":
        self._directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._directory.name, "agent.sock")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for sock in [self._listener, *self._open]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        self._directory.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            self._behaviour(Talk(self, sock, number))
        except OSError:
            pass
        finally:
            sock.close()
