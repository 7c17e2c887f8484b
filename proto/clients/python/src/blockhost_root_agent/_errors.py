"""Why a call gave no answer that can be used. Raised by both clients."""

from __future__ import annotations

from typing import Any, Dict


class RootAgentError(Exception):
    """The agent said no, or tried and failed.

    ``code`` is one of the codes of the protocol (``not_found``, ``busy``, ...), ``message`` the agent's sentence,
    ``response`` the whole answer.
    """

    def __init__(self, code: str, message: str, response: Dict[str, Any]) -> None:
        super().__init__(code, message, response)
        self.code = code
        self.message = message
        self.response = response

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class RootAgentConnectionError(ConnectionError):
    """The agent could not be reached, the connection broke, or what came is not this protocol.

    ``maybe_executed`` says whether the request may have reached the agent: then the ledger tells what happened,
    and doing the same again is for the caller to decide.
    """

    def __init__(self, message: str, maybe_executed: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class RootAgentTimeoutError(RootAgentConnectionError, TimeoutError):
    """No answer in time."""
