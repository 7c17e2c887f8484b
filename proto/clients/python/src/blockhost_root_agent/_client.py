"""The blocking client. Connections are kept and used again; a connection on which anything went wrong never is, so
that an answer cannot be taken for that of another question."""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple, Type, Union, cast

from . import _socket, _wire
from ._actions import Actions
from ._errors import RootAgentConnectionError, RootAgentError, RootAgentTimeoutError
from ._types import TIME_LIMITS_S, Reply

Request = Tuple[str, Mapping[str, Any]]


class _Connection:
    """One open socket. Every method raises before it leaves the connection in doubt; the caller then closes it."""

    def __init__(self, path: str, deadline: float, limit: float) -> None:
        self.path = path
        self._next_id = 1
        self._decoder = _wire.Decoder()
        self._sock = _socket.new_socket()
        try:
            while not _socket.try_connect(self._sock, path):
                if time.monotonic() >= deadline:
                    raise RootAgentTimeoutError(f"the root agent at {path} accepted no connection within {limit:g} s")
                time.sleep(_socket.RETRY_PAUSE_S)
        except BaseException:
            self._sock.close()
            raise

    def close(self) -> None:
        self._sock.close()

    def usable(self) -> bool:
        return self._decoder.empty and _socket.is_quiet(self._sock)

    def exchange(
        self, requests: List[Request], dry_run: bool, deadline: float, limit: float
    ) -> List[Dict[str, Any]]:
        """Sends all requests, then reads as many answers."""
        ids = [str(number) for number in range(self._next_id, self._next_id + len(requests))]
        self._next_id += len(requests)
        frames = [_wire.encode(name, params, mark, dry_run) for (name, params), mark in zip(requests, ids)]
        self._send(b"".join(frames), deadline, limit)
        return [_wire.parse_answer(self._receive(deadline, limit), mark) for mark in ids]

    def _send(self, data: bytes, deadline: float, limit: float) -> None:
        try:
            self._sock.settimeout(_left(deadline, limit))
            self._sock.sendall(data)
        except socket.timeout:
            raise _late(limit) from None
        except OSError as error:
            # The agent may have answered before it closed, for instance that there are too many connections.
            raise self._last_words(deadline, limit) or _wire.broken(str(error)) from None

    def _last_words(self, deadline: float, limit: float) -> Optional[RootAgentError]:
        try:
            self._sock.settimeout(_left(deadline, limit))
            while True:
                data = self._sock.recv(1 << 16)
                self._decoder.feed(data)
                said = _wire.last_words(self._decoder)
                if said is not None or not data:
                    return said
        except (OSError, RootAgentConnectionError):
            return None

    def _receive(self, deadline: float, limit: float) -> bytes:
        while True:
            payload = self._decoder.next_frame()
            if payload is not None:
                return payload
            try:
                self._sock.settimeout(_left(deadline, limit))
                data = self._sock.recv(1 << 16)
            except socket.timeout:
                raise _late(limit) from None
            except OSError as error:
                raise _wire.broken(str(error)) from None
            if not data:
                raise _wire.broken("the agent closed it without an answer")
            self._decoder.feed(data)


def _late(limit: float) -> RootAgentTimeoutError:
    return RootAgentTimeoutError(
        f"no answer from the root agent within {limit:g} s; if it began, the ledger has what became of it",
        maybe_executed=True,
    )


def _left(deadline: float, limit: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _late(limit)
    return left


class RootAgentClient(Actions):
    """Calls actions of the root agent, from any number of threads.

    :param socket_path: the agent's socket; without it that of this host, or of the world in ``BLOCKHOST_ROOT``.
    :param timeout: seconds to wait for an answer; without it what the action may take, and a minute for queues.
    :param max_connections: calls under way at a time; more wait for one to end.
    """

    def __init__(
        self, socket_path: Optional[str] = None, timeout: Optional[float] = None, *, max_connections: int = 16
    ) -> None:
        self._socket_path = socket_path
        self._timeout = timeout
        self._max_connections = max_connections
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._idle: List[_Connection] = []
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self._max_connections)

    def __enter__(self) -> "RootAgentClient":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes idle connections. The client can be used on; it then connects anew."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def call(
        self,
        action: str,
        /,
        timeout: Optional[float] = None,
        *,
        params: Optional[Mapping[str, Any]] = None,
        dry_run: bool = False,
        **named: Any,
    ) -> Dict[str, Any]:
        """Asks for an action and waits for its answer.

        Parameters of the action are given by name, or in ``params`` where a name means something here (``timeout``).
        ``timeout`` is how long to wait for the answer, in seconds; ``dry_run`` has it checked and not done.

        :raises RootAgentError: the agent refused it, or tried and failed.
        :raises RootAgentConnectionError: there was no answer.
        """
        return self._one(action, {**(params or {}), **named}, timeout, dry_run)

    def call_many(
        self, requests: Iterable[Request], timeout: Optional[float] = None
    ) -> List[Union[Reply, RootAgentError]]:
        """Asks for many actions over one connection without waiting in between; answers come in the same order.

        A refusal stands in the list as the error it is. When the connection breaks, `RootAgentConnectionError` is
        raised for all: answers not received are lost, the ledger knows what happened.
        """
        asked = list(requests)
        limit = timeout if timeout is not None else self._timeout
        if limit is None:
            limit = sum(_time_limit(name) for name, _ in asked) + _wire.QUEUE_ALLOWANCE_S
        answers: List[Dict[str, Any]] = []
        for start in range(0, len(asked), _wire.MAX_PIPELINED):
            answers += self._exchange(asked[start : start + _wire.MAX_PIPELINED], False, limit)
        return [cast(Reply, answer) if answer["ok"] else _wire.refusal(answer) for answer in answers]

    def _invoke(
        self, action: str, params: Dict[str, Any], call_timeout: Optional[float], dry_run: bool
    ) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self._one(action, given, call_timeout, dry_run)

    def _one(
        self, action: str, params: Dict[str, Any], timeout: Optional[float], dry_run: bool
    ) -> Dict[str, Any]:
        limit = timeout if timeout is not None else self._timeout
        if limit is None:
            limit = _time_limit(action) + _wire.QUEUE_ALLOWANCE_S
        (answer,) = self._exchange([(action, params)], dry_run, limit)
        if not answer["ok"]:
            raise _wire.refusal(answer)
        return answer

    def _exchange(self, requests: List[Request], dry_run: bool, limit: float) -> List[Dict[str, Any]]:
        if os.getpid() != self._pid:
            # A child of fork: these connections are the parent's, and so may be the locks.
            inherited = self._idle
            self._start()
            for connection in inherited:
                connection.close()
        deadline = time.monotonic() + limit
        if not self._slots.acquire(timeout=max(limit, 0.0)):
            raise RootAgentTimeoutError(f"all {self._max_connections} connections stayed busy for {limit:g} s")
        try:
            connection = self._connection(deadline, limit)
            try:
                answers = connection.exchange(requests, dry_run, deadline, limit)
            except BaseException:
                connection.close()
                raise
            with self._lock:
                self._idle.append(connection)
            return answers
        finally:
            self._slots.release()

    def _connection(self, deadline: float, limit: float) -> _Connection:
        path = self._socket_path if self._socket_path is not None else _wire.default_socket()
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return _Connection(path, deadline, limit)
            # The agent may have been restarted, or have closed what was idle for long: nothing was asked yet, so
            # connecting anew cannot make anything happen twice.
            if connection.path == path and connection.usable():
                return connection
            connection.close()


def _time_limit(action: str) -> float:
    return float(TIME_LIMITS_S.get(action, max(TIME_LIMITS_S.values())))


default_client = RootAgentClient()
atexit.register(default_client.close)
call = default_client.call
call_many = default_client.call_many
