"""The asyncio client: the same calls as the blocking one, as coroutines.

A cancelled call closes its connection; whether the action happened is then in the ledger.

    from blockhost_root_agent import aio

    await aio.qm_start(100)
"""

from __future__ import annotations

from . import _aio_functions
from ._aio_client import RootAgentClient, call, call_many
from ._aio_functions import *  # noqa: F401,F403
from ._errors import RootAgentConnectionError, RootAgentError, RootAgentTimeoutError

__all__ = [
    "RootAgentClient",
    "RootAgentConnectionError",
    "RootAgentError",
    "RootAgentTimeoutError",
    "call",
    "call_many",
]
__all__ += _aio_functions.__all__
