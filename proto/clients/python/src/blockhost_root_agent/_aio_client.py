"""The asyncio client. Rules for connections as in the blocking one. Sockets are driven through the running loop by
hand: an idle one then belongs to no loop, and whether it is still good can be seen without waiting for the loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple, Type, Union, cast

from . import _socket, _wire
from ._aio_actions import AsyncActions
from ._errors import RootAgentConnectionError, RootAgentError, RootAgentTimeoutError
from ._types import TIME_LIMITS_S, Reply

Request = Tuple[str, Mapping[str, Any]]


class _Connection:
    def __init__(self, path: str, sock: socket.socket) -> None:
        self.path = path
        self._sock = sock
        self._next_id = 1
        self._decoder = _wire.Decoder()

    @classmethod
    async def open(cls, path: str) -> "_Connection":
        sock = _socket.new_socket()
        try:
            while not _socket.try_connect(sock, path):
                await asyncio.sleep(_socket.RETRY_PAUSE_S)
        except BaseException:
            sock.close()
            raise
        return cls(path, sock)

    def close(self) -> None:
        self._sock.close()

    def usable(self) -> bool:
        return self._decoder.empty and _socket.is_quiet(self._sock)

    async def exchange(self, requests: List[Request], dry_run: bool) -> List[Dict[str, Any]]:
        """Sends all requests, then reads as many answers."""
        ids = [str(number) for number in range(self._next_id, self._next_id + len(requests))]
        self._next_id += len(requests)
        frames = [_wire.encode(name, params, mark, dry_run) for (name, params), mark in zip(requests, ids)]
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._sock, b"".join(frames))
        except OSError as error:
            # The agent may have answered before it closed, for instance that there are too many connections.
            raise await self._last_words() or _wire.broken(str(error)) from None
        return [_wire.parse_answer(await self._receive(), mark) for mark in ids]

    async def _last_words(self) -> Optional[RootAgentError]:
        try:
            while True:
                data = await asyncio.get_running_loop().sock_recv(self._sock, 1 << 16)
                self._decoder.feed(data)
                said = _wire.last_words(self._decoder)
                if said is not None or not data:
                    return said
        except OSError:
            return None

    async def _receive(self) -> bytes:
        while True:
            payload = self._decoder.next_frame()
            if payload is not None:
                return payload
            try:
                data = await asyncio.get_running_loop().sock_recv(self._sock, 1 << 16)
            except OSError as error:
                raise _wire.broken(str(error)) from None
            if not data:
                raise _wire.broken("the agent closed it without an answer")
            self._decoder.feed(data)


class RootAgentClient(AsyncActions):
    """Calls actions of the root agent from asyncio, from any loop.

    :param socket_path: the agent's socket; without it that of this host, or of the world in ``BLOCKHOST_ROOT``.
    :param timeout: seconds to wait for an answer; without it what the action may take, and a minute for queues.
    :param max_connections: calls under way at a time in one loop; more wait for one to end.
    """

    def __init__(
        self, socket_path: Optional[str] = None, timeout: Optional[float] = None, *, max_connections: int = 16
    ) -> None:
        self._socket_path = socket_path
        self._timeout = timeout
        self._max_connections = max_connections
        self._idle: List[_Connection] = []
        self._pid = os.getpid()
        self._slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    async def __aenter__(self) -> "RootAgentClient":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes idle connections. The client can be used on; it then connects anew."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    async def call(
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
        return await self._one(action, {**(params or {}), **named}, timeout, dry_run)

    async def call_many(
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
            answers += await self._exchange(asked[start : start + _wire.MAX_PIPELINED], False, limit)
        return [cast(Reply, answer) if answer["ok"] else _wire.refusal(answer) for answer in answers]

    async def _invoke(
        self, action: str, params: Dict[str, Any], call_timeout: Optional[float], dry_run: bool
    ) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return await self._one(action, given, call_timeout, dry_run)

    async def _one(
        self, action: str, params: Dict[str, Any], timeout: Optional[float], dry_run: bool
    ) -> Dict[str, Any]:
        limit = timeout if timeout is not None else self._timeout
        if limit is None:
            limit = _time_limit(action) + _wire.QUEUE_ALLOWANCE_S
        (answer,) = await self._exchange([(action, params)], dry_run, limit)
        if not answer["ok"]:
            raise _wire.refusal(answer)
        return answer

    async def _exchange(self, requests: List[Request], dry_run: bool, limit: float) -> List[Dict[str, Any]]:
        progress = _Progress()
        try:
            return await asyncio.wait_for(self._exchange_now(requests, dry_run, progress), limit)
        except asyncio.TimeoutError as error:
            if isinstance(error, RootAgentConnectionError):
                raise
            if progress.begun:
                raise RootAgentTimeoutError(
                    f"no answer from the root agent within {limit:g} s; if it began, the ledger has what became of it",
                    maybe_executed=True,
                ) from None
            raise RootAgentTimeoutError(f"the root agent accepted no connection within {limit:g} s") from None

    async def _exchange_now(
        self, requests: List[Request], dry_run: bool, progress: "_Progress"
    ) -> List[Dict[str, Any]]:
        async with self._slot():
            connection = await self._connection()
            try:
                progress.begun = True
                answers = await connection.exchange(requests, dry_run)
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return answers

    def _slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        slot = self._slots.get(loop)
        if slot is None:
            slot = self._slots[loop] = asyncio.Semaphore(self._max_connections)
        return slot

    async def _connection(self) -> _Connection:
        path = self._socket_path if self._socket_path is not None else _wire.default_socket()
        if os.getpid() != self._pid:
            # A child of fork: these connections are the parent's.
            self._pid = os.getpid()
            self.close()
        while self._idle:
            connection = self._idle.pop()
            # The agent may have been restarted, or have closed what was idle for long: nothing was asked yet, so
            # connecting anew cannot make anything happen twice.
            if connection.path == path and connection.usable():
                return connection
            connection.close()
        return await _Connection.open(path)


class _Progress:
    """Whether a request may have reached the agent."""

    begun = False


def _time_limit(action: str) -> float:
    return float(TIME_LIMITS_S.get(action, max(TIME_LIMITS_S.values())))


default_client = RootAgentClient()
atexit.register(default_client.close)
call = default_client.call
call_many = default_client.call_many
