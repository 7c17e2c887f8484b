"""Opening the agent's socket, and looking whether an idle connection is still good. Used by both clients."""

from __future__ import annotations

import os
import socket
from typing import Optional, Tuple

from ._errors import RootAgentConnectionError

#: Pause before connecting again while the agent's queue of new connections is full, in seconds.
RETRY_PAUSE_S = 0.01
# Longer paths do not fit into a socket address.
_SUN_PATH_MAX = 107


def new_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    return sock


def try_connect(sock: socket.socket, path: str) -> bool:
    """Connects a socket that does not block; ``False`` when the agent's queue is full now.

    ``connect`` with a time limit, and asyncio's, take that answer (EAGAIN) for "under way" and report a connection
    that does not exist.
    """
    address, directory = _short(path)
    try:
        sock.connect(address)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        raise unreachable(path, error.strerror or str(error)) from None
    finally:
        if directory is not None:
            os.close(directory)


def unreachable(path: str, why: str) -> RootAgentConnectionError:
    return RootAgentConnectionError(
        f"cannot reach the root agent at {path}: {why}; "
        "is blockhost-root-agent running, and are you in group blockhost?"
    )


def is_quiet(sock: socket.socket) -> bool:
    """Whether an idle connection can carry another request: open, and nothing has come unasked."""
    # With a time limit set, Python waits even where MSG_DONTWAIT asks it not to.
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _short(path: str) -> Tuple[str, Optional[int]]:
    """A path that fits: the directory is opened and named by its descriptor where the whole path is too long."""
    if len(os.fsencode(path)) <= _SUN_PATH_MAX:
        return path, None
    parent, name = os.path.split(path)
    try:
        directory = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unreachable(path, error.strerror or str(error)) from None
    return f"/proc/self/fd/{directory}/{name}", directory
