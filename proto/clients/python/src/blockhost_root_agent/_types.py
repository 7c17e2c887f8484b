# Generated from the catalog by `make clients`; do not edit.
"""Types of parameters and answers, and what the catalog says in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Dict, Literal, Tuple, TypedDict, Union

ErrorCode = Literal[
    "bad_frame",
    "bad_json",
    "unknown_action",
    "bad_params",
    "forbidden",
    "not_found",
    "conflict",
    "busy",
    "timeout",
    "failed",
    "internal",
]

#: Every code that an answer may carry.
ERROR_CODES: Tuple[ErrorCode, ...] = (
    "bad_frame",
    "bad_json",
    "unknown_action",
    "bad_params",
    "forbidden",
    "not_found",
    "conflict",
    "busy",
    "timeout",
    "failed",
    "internal",
)

#: The longest that each action may run, in seconds.
TIME_LIMITS_S: Dict[str, int] = {
    "qm-start": 120,
    "qm-stop": 60,
    "qm-template": 600,
    "qm-shutdown": 630,
    "qm-destroy": 300,
    "qm-create": 600,
    "qm-set": 300,
    "qm-importdisk": 1800,
    "qm-clone": 1800,
    "qm-resize": 300,
    "qm-status": 30,
    "qm-config": 30,
    "qm-list": 30,
    "qm-guest-ping": 30,
    "qm-guest-exec": 630,
    "pct-create": 600,
    "pct-start": 120,
    "pct-stop": 60,
    "pct-shutdown": 630,
    "pct-destroy": 300,
    "pct-status": 30,
    "pct-config": 30,
    "pct-list": 30,
    "pct-set": 300,
    "pct-exec": 630,
    "vm-throttle": 120,
    "pve-set-throttle": 120,
    "tc-rate-limit": 60,
    "virt-customize": 1800,
    "ip6-route-add": 5,
    "ip6-route-del": 5,
    "iptables-open": 15,
    "iptables-close": 15,
    "generate-wallet": 10,
    "addressbook-save": 10,
    "ledger-append": 10,
    "agent-info": 5,
}


class Receipt(TypedDict):
    """Where the ledger holds what happened."""

    #: Leaf index, from 0.
    index: int
    #: Leaf hash of RFC 6962, 64 hex digits.
    leaf: str


class _ReplyAlways(TypedDict):
    ok: Literal[True]
    #: Text for people, or JSON where the action says so.
    output: str


class Reply(_ReplyAlways, total=False):
    """A success."""

    id: str
    receipt: Receipt
    #: The output was too long for one answer and is cut.
    truncated: bool


class _AddressbookSaveEntriesEntryAlways(TypedDict):
    address: str


class AddressbookSaveEntriesEntry(_AddressbookSaveEntriesEntryAlways, total=False):
    keyfile: str


class AgentInfoCounters(TypedDict):
    connections: int
    connections_refused: int
    failed: int
    in_flight: int
    open_connections: int
    refused: int
    requests: int
    succeeded: int


class AgentInfoLedger(TypedDict):
    root: str
    size: int


class _QmImportdiskReplyAlways(Reply):
    #: Format of the image: `qcow2` or `raw`.
    format: str


class QmImportdiskReply(_QmImportdiskReplyAlways, total=False):
    #: The volume that was made, such as `local:100/vm-100-disk-0.raw`.
    volume: str


class QmGuestExecReply(Reply):
    #: Exit code of the command; 128 and the number of the signal that ended it.
    exitcode: int
    #: What it wrote; of a long text its beginning and its end.
    stdout: str
    #: What it wrote to standard error, likewise.
    stderr: str


class PctExecReply(Reply):
    #: Exit code of the command; 128 and the number of the signal that ended it.
    exitcode: int
    #: What it wrote; of a long text its beginning and its end.
    stdout: str
    #: What it wrote to standard error, likewise.
    stderr: str


class GenerateWalletReply(Reply):
    #: Address of the new wallet, with the checksum of EIP-55.
    address: str
    #: Path of the key on the host.
    keyfile: str


class AgentInfoReply(Reply):
    #: Version of the agent.
    version: str
    #: `proxmox` or `embedded`.
    backend: str
    #: Landlock ABI in force; 0 without.
    landlock_abi: int
    #: Seconds since the agent started.
    uptime_s: int
    #: Connections and requests since the front started.
    counters: AgentInfoCounters
    #: Number of records and Merkle root of the ledger.
    ledger: AgentInfoLedger

__all__ = [
    "AddressbookSaveEntriesEntry",
    "AgentInfoCounters",
    "AgentInfoLedger",
    "AgentInfoReply",
    "ERROR_CODES",
    "ErrorCode",
    "GenerateWalletReply",
    "PctExecReply",
    "QmGuestExecReply",
    "QmImportdiskReply",
    "Receipt",
    "Reply",
    "TIME_LIMITS_S",
]
