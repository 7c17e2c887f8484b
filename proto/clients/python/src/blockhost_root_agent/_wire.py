"""Frames and answers of the protocol, without I/O. The two clients feed it what they read and send what it makes."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Dict, List, Optional, Tuple

from ._errors import RootAgentConnectionError, RootAgentError

#: Answers longer than this are not read. Larger than the agent's default, which an operator may raise.
MAX_ANSWER = 16 << 20
#: Requests under way at a time on one connection; half of what the agent allows.
MAX_PIPELINED = 16
#: Added to an action's own limit: time in queues of the agent before it starts, in seconds.
QUEUE_ALLOWANCE_S = 60.0

_HEADER = struct.Struct(">I")


def default_socket() -> str:
    """The agent's socket in the world that ``BLOCKHOST_ROOT`` names; unset or empty means this host."""
    root = os.environ.get("BLOCKHOST_ROOT") or "/"
    return os.path.join(root, "run/blockhost/root-agent.sock")


def encode(action: str, params: Mapping[str, Any], request_id: str, dry_run: bool) -> bytes:
    """One request as a frame.

    Raises ``TypeError`` or ``ValueError`` for values that JSON cannot hold.
    """
    request: Dict[str, Any] = {"action": action, "params": params, "id": request_id}
    if dry_run:
        request["dry_run"] = True
    text = json.dumps(request, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    payload = text.encode("utf-8")
    if len(payload) > 0xFFFF_FFFF:
        raise ValueError("a request has at most 4294967295 bytes")
    return _HEADER.pack(len(payload)) + payload


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class Decoder:
    """Cuts a stream of bytes into frames. Holds what has arrived, never what was merely announced."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> None:
        self._pending += data

    @property
    def empty(self) -> bool:
        return not self._pending

    def next_frame(self) -> Optional[bytes]:
        """The next whole payload, or ``None`` when more bytes are needed."""
        if len(self._pending) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._pending)
        if length == 0:
            raise broken("it announced an empty answer")
        if length > MAX_ANSWER:
            raise broken(f"it announced an answer of {length} bytes, the limit is {MAX_ANSWER}")
        end = _HEADER.size + length
        if len(self._pending) < end:
            return None
        payload = bytes(self._pending[_HEADER.size : end])
        del self._pending[:end]
        return payload


def broken(what: str) -> RootAgentConnectionError:
    """The error for a connection that cannot be used on."""
    return RootAgentConnectionError(f"the connection to the root agent is broken: {what}", maybe_executed=True)


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_answer(payload: bytes, request_id: str) -> Dict[str, Any]:
    """The answer to the request of that id, a success or a refusal.

    Raises `RootAgentError` for a refusal without id (it is about the connection, and the last thing that comes),
    `RootAgentConnectionError` for anything that is not an answer to this request.
    """
    try:
        answer = json.loads(payload.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise broken(f"the answer is not valid JSON: {error}") from None
    if not isinstance(answer, dict):
        raise broken("the answer is not a JSON object")
    ok = answer.get("ok")
    fields = ("output",) if ok is True else ("error", "code")
    if not isinstance(ok, bool) or not all(isinstance(answer.get(field), str) for field in fields):
        raise broken(f"the answer lacks or misuses one of the fields ok, {', '.join(fields)}")
    if ok is False and "id" not in answer:
        raise refusal(answer)
    if answer.get("id") != request_id:
        raise broken("the answer belongs to another question")
    return answer


def refusal(answer: Dict[str, Any]) -> RootAgentError:
    """The error that an answer with ``"ok": false`` stands for."""
    return RootAgentError(answer["code"], answer["error"], answer)


def last_words(decoder: Decoder) -> Optional[RootAgentError]:
    """What the agent said before it closed, where that explains why: too many connections, a frame too long."""
    try:
        payload = decoder.next_frame()
        if payload is not None:
            parse_answer(payload, "")
    except RootAgentError as error:
        return error
    except RootAgentConnectionError:
        pass
    return None
