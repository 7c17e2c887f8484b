"""Client of the BlockHost root agent: one function per action, typed, without dependencies.

    from blockhost_root_agent import RootAgentError, call, qm_start

    qm_start(100)
    call("qm-start", vmid=100, timeout=30)

The same as coroutines is in `blockhost_root_agent.aio`.
"""

from __future__ import annotations

from . import _functions, _types
from ._client import RootAgentClient, call, call_many
from ._errors import RootAgentConnectionError, RootAgentError, RootAgentTimeoutError
from ._functions import *  # noqa: F401,F403
from ._types import *  # noqa: F401,F403

__version__ = "0.1.0"

__all__ = [
    "RootAgentClient",
    "RootAgentConnectionError",
    "RootAgentError",
    "RootAgentTimeoutError",
    "call",
    "call_many",
]
__all__ += _functions.__all__
__all__ += _types.__all__
