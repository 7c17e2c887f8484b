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
    "qm-metrics": 120,
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
    "route-set": 10,
    "route-del": 10,
    "route-from-set": 10,
    "route-from-del": 10,
    "iptables-open": 15,
    "iptables-close": 15,
    "iptables-list": 15,
    "iptables-set": 30,
    "nat-map": 15,
    "nat-unmap": 15,
    "nat-list": 15,
    "nat-set": 30,
    "proxy-set": 10,
    "proxy-del": 10,
    "masquerade-set": 15,
    "masquerade-list": 15,
    "sysctl-set": 10,
    "veth-rename": 5,
    "link-set": 10,
    "link-handover": 30,
    "ovs-add-br": 30,
    "ovs-del-br": 30,
    "ovs-add-port": 30,
    "ovs-del-port": 30,
    "ovs-set-flows": 60,
    "ovs-set-qos": 30,
    "ovs-set-meter": 30,
    "ovs-list": 30,
    "container-look": 5,
    "container-attach": 15,
    "container-detach": 15,
    "wg-setup": 15,
    "wg-set-peers": 15,
    "wg-teardown": 15,
    "wg-show": 15,
    "generate-wallet": 10,
    "addressbook-save": 10,
    "broker-renew": 10,
    "ledger-append": 10,
    "ledger-anchored": 10,
    "ledger-blob": 10,
    "ledger-shred": 10,
    "ledger-prune": 120,
    "ledger-cosign": 10,
    "ledger-rotate-key": 30,
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


class _IptablesSetRuleAlways(TypedDict):
    comment: str
    port: int


class IptablesSetRule(_IptablesSetRuleAlways, total=False):
    proto: Literal["tcp", "udp"]
    source: str


class NatSetPair(TypedDict):
    comment: str
    private: str
    public: str


class OvsAddBrOptions(TypedDict, total=False):
    datapath_type: Literal["system", "netdev"]
    fail_mode: Literal["standalone", "secure"]
    hwaddr: str
    mcast_snooping: bool
    mtu: int


class OvsSetFlowsFlowActionOutput(TypedDict):
    output: Union[str, int]


class OvsSetFlowsFlowActionResubmit(TypedDict):
    resubmit: int


class OvsSetFlowsFlowActionGotoTable(TypedDict):
    goto_table: int


class OvsSetFlowsFlowActionSetField(TypedDict):
    set_field: Mapping[str, Any]


class OvsSetFlowsFlowActionLoad(TypedDict):
    load: Mapping[str, Any]


class OvsSetFlowsFlowActionMove(TypedDict):
    move: Mapping[str, Any]


class OvsSetFlowsFlowActionPushVlan(TypedDict):
    push_vlan: int


class OvsSetFlowsFlowActionSetQueue(TypedDict):
    set_queue: int


class OvsSetFlowsFlowActionMeter(TypedDict):
    meter: int


class OvsSetFlowsFlowActionCt(TypedDict):
    ct: Mapping[str, Any]


class OvsSetFlowsFlowActionConjunction(TypedDict):
    conjunction: Mapping[str, Any]


class OvsSetFlowsFlowMatch(TypedDict, total=False):
    arp_op: int
    arp_sha: str
    arp_spa: str
    arp_tha: str
    arp_tpa: str
    conj_id: int
    ct_mark: Union[int, Mapping[str, Any]]
    ct_state: Mapping[str, Any]
    ct_zone: int
    dl_dst: str
    dl_src: str
    dl_type: Union[str, int]
    icmp_code: int
    icmp_type: int
    in_port: Union[str, int]
    ip_dscp: int
    ipv6_dst: str
    ipv6_src: str
    metadata: Union[int, Mapping[str, Any]]
    nd_sll: str
    nd_target: str
    nd_tll: str
    nw_dst: str
    nw_frag: str
    nw_proto: Union[str, int]
    nw_src: str
    nw_ttl: int
    pkt_mark: Union[int, Mapping[str, Any]]
    reg0: Union[int, Mapping[str, Any]]
    reg1: Union[int, Mapping[str, Any]]
    reg10: Union[int, Mapping[str, Any]]
    reg11: Union[int, Mapping[str, Any]]
    reg12: Union[int, Mapping[str, Any]]
    reg13: Union[int, Mapping[str, Any]]
    reg14: Union[int, Mapping[str, Any]]
    reg15: Union[int, Mapping[str, Any]]
    reg2: Union[int, Mapping[str, Any]]
    reg3: Union[int, Mapping[str, Any]]
    reg4: Union[int, Mapping[str, Any]]
    reg5: Union[int, Mapping[str, Any]]
    reg6: Union[int, Mapping[str, Any]]
    reg7: Union[int, Mapping[str, Any]]
    reg8: Union[int, Mapping[str, Any]]
    reg9: Union[int, Mapping[str, Any]]
    tp_dst: Union[int, Mapping[str, Any]]
    tp_src: Union[int, Mapping[str, Any]]
    tun_dst: str
    tun_id: Union[int, Mapping[str, Any]]
    tun_src: str
    vlan: Union[str, int]
    vlan_pcp: int


class _OvsSetFlowsFlowAlways(TypedDict):
    actions: Sequence[Union[Literal["drop", "normal", "flood", "in_port", "local", "dec_ttl", "pop_vlan", "pop_queue"], OvsSetFlowsFlowActionOutput, OvsSetFlowsFlowActionResubmit, OvsSetFlowsFlowActionGotoTable, OvsSetFlowsFlowActionSetField, OvsSetFlowsFlowActionLoad, OvsSetFlowsFlowActionMove, OvsSetFlowsFlowActionPushVlan, OvsSetFlowsFlowActionSetQueue, OvsSetFlowsFlowActionMeter, OvsSetFlowsFlowActionCt, OvsSetFlowsFlowActionConjunction]]


class OvsSetFlowsFlow(_OvsSetFlowsFlowAlways, total=False):
    columns: Sequence[str]
    hard_timeout: int
    idle_timeout: int
    match: OvsSetFlowsFlowMatch
    priority: int
    rows: Sequence[Sequence[Any]]
    table: int


class _OvsSetQosQueueAlways(TypedDict):
    queue: int


class OvsSetQosQueue(_OvsSetQosQueueAlways, total=False):
    burst_kbit: int
    max_kbps: int
    min_kbps: int
    priority: int


class _WgSetPeersPeerAlways(TypedDict):
    allowed_ips: Sequence[str]
    public_key: str


class WgSetPeersPeer(_WgSetPeersPeerAlways, total=False):
    endpoint: str
    keepalive: int
    preshared: str


class _AddressbookSaveEntryAlways(TypedDict):
    address: str


class AddressbookSaveEntry(_AddressbookSaveEntryAlways, total=False):
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


class VirtCustomizeReply(Reply):
    #: Format of the image: `qcow2` or `raw`.
    format: str


class IptablesListReply(Reply):
    #: Whether nothing else stands in our chain, nothing twice, and it is in effect.
    clean: bool


class NatListReply(Reply):
    #: Whether nothing else stands in our chains, nothing twice, and they are in effect.
    clean: bool


class SysctlSetReply(Reply):
    #: Whether it was on before.
    before: bool


class VethRenameReply(Reply):
    #: The name that the interface can be found by now.
    name: str


class LinkSetReply(Reply):
    #: Whether it is up now.
    up: bool
    #: Its MTU now.
    mtu: int
    #: Its addresses, with the length of their networks; those of the link alone left out.
    addresses: Sequence[str]
    #: Whether IPv4 packets that come in by it are forwarded.
    forward: bool


class LinkHandoverReply(Reply):
    #: Its addresses, with the length of their networks; those of the link alone left out.
    addresses: Sequence[str]
    #: How many routes were moved by this request.
    routes: int


class OvsAddPortReply(Reply):
    #: The port's OpenFlow number.
    ofport: int


class OvsSetFlowsReply(Reply):
    #: Flows that were not there before.
    added: int
    #: Flows whose actions or timeouts are others now.
    changed: int
    #: Flows that are gone.
    removed: int


class ContainerLookReply(Reply):
    #: Number of the network namespace.
    netns: int


class ContainerAttachReply(Reply):
    #: Hardware address of the end inside.
    mac: str
    #: Whether the wire was made by this request.
    new: bool


class WgSetupReply(Reply):
    #: The tunnel's public key, base64.
    public_key: str
    #: The UDP port that it listens on.
    listen_port: int


class _WgSetPeersReplyAlways(Reply):
    pass


class WgSetPeersReply(_WgSetPeersReplyAlways, total=False):
    #: Public key to shared key, for peers with `generate`: what the other side needs.
    preshared_keys: Mapping[str, str]


class GenerateWalletReply(Reply):
    #: Address of the new wallet, with the checksum of EIP-55.
    address: str
    #: Path of the key on the host.
    keyfile: str


class _BrokerRenewReplyAlways(Reply):
    #: The prefix that the host has now.
    prefix: str


class BrokerRenewReply(_BrokerRenewReplyAlways, total=False):
    #: The prefix before, where it was another one.
    previous: str


class LedgerBlobReply(Reply):
    #: Hash of the ciphertext: the name of the blob.
    sha256: str


class LedgerPruneReply(Reply):
    #: Height of the first record without its payload now.
    first: int
    #: Height of the last one.
    last: int
    #: Bytes of payloads that were deleted.
    bytes: int
    #: Height of the record that says so.
    record: int
    #: How many more of such parts there are below `before` that are old enough.
    left: int


class LedgerCosignReply(Reply):
    #: How many witnesses have cosigned this head.
    witnesses: int


class LedgerRotateKeyReply(Reply):
    #: Number of the new epoch.
    epoch: int
    #: Its verifier key.
    vkey: str


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
    "AddressbookSaveEntry",
    "AgentInfoCounters",
    "AgentInfoLedger",
    "AgentInfoReply",
    "BrokerRenewReply",
    "ContainerAttachReply",
    "ContainerLookReply",
    "ERROR_CODES",
    "ErrorCode",
    "GenerateWalletReply",
    "IptablesListReply",
    "IptablesSetRule",
    "LedgerBlobReply",
    "LedgerCosignReply",
    "LedgerPruneReply",
    "LedgerRotateKeyReply",
    "LinkHandoverReply",
    "LinkSetReply",
    "NatListReply",
    "NatSetPair",
    "OvsAddBrOptions",
    "OvsAddPortReply",
    "OvsSetFlowsFlow",
    "OvsSetFlowsFlowActionConjunction",
    "OvsSetFlowsFlowActionCt",
    "OvsSetFlowsFlowActionGotoTable",
    "OvsSetFlowsFlowActionLoad",
    "OvsSetFlowsFlowActionMeter",
    "OvsSetFlowsFlowActionMove",
    "OvsSetFlowsFlowActionOutput",
    "OvsSetFlowsFlowActionPushVlan",
    "OvsSetFlowsFlowActionResubmit",
    "OvsSetFlowsFlowActionSetField",
    "OvsSetFlowsFlowActionSetQueue",
    "OvsSetFlowsFlowMatch",
    "OvsSetFlowsReply",
    "OvsSetQosQueue",
    "PctExecReply",
    "QmGuestExecReply",
    "QmImportdiskReply",
    "Receipt",
    "Reply",
    "SysctlSetReply",
    "TIME_LIMITS_S",
    "VethRenameReply",
    "VirtCustomizeReply",
    "WgSetPeersPeer",
    "WgSetPeersReply",
    "WgSetupReply",
]
