# Generated from the catalog by `make clients`; do not edit.
"""One function per action of the catalog, on a client that all of them share."""

from __future__ import annotations

from ._client import default_client

qm_start = default_client.qm_start
qm_stop = default_client.qm_stop
qm_template = default_client.qm_template
qm_shutdown = default_client.qm_shutdown
qm_destroy = default_client.qm_destroy
qm_create = default_client.qm_create
qm_set = default_client.qm_set
qm_importdisk = default_client.qm_importdisk
qm_clone = default_client.qm_clone
qm_resize = default_client.qm_resize
qm_status = default_client.qm_status
qm_config = default_client.qm_config
qm_list = default_client.qm_list
qm_metrics = default_client.qm_metrics
qm_guest_ping = default_client.qm_guest_ping
qm_guest_exec = default_client.qm_guest_exec
pct_create = default_client.pct_create
pct_start = default_client.pct_start
pct_stop = default_client.pct_stop
pct_shutdown = default_client.pct_shutdown
pct_destroy = default_client.pct_destroy
pct_status = default_client.pct_status
pct_config = default_client.pct_config
pct_list = default_client.pct_list
pct_set = default_client.pct_set
pct_exec = default_client.pct_exec
vm_throttle = default_client.vm_throttle
pve_set_throttle = default_client.pve_set_throttle
tc_rate_limit = default_client.tc_rate_limit
virt_customize = default_client.virt_customize
ip6_route_add = default_client.ip6_route_add
ip6_route_del = default_client.ip6_route_del
route_set = default_client.route_set
route_del = default_client.route_del
route_from_set = default_client.route_from_set
route_from_del = default_client.route_from_del
iptables_open = default_client.iptables_open
iptables_close = default_client.iptables_close
iptables_list = default_client.iptables_list
iptables_set = default_client.iptables_set
nat_map = default_client.nat_map
nat_unmap = default_client.nat_unmap
nat_list = default_client.nat_list
nat_set = default_client.nat_set
proxy_set = default_client.proxy_set
proxy_del = default_client.proxy_del
masquerade_set = default_client.masquerade_set
masquerade_list = default_client.masquerade_list
sysctl_set = default_client.sysctl_set
veth_rename = default_client.veth_rename
link_set = default_client.link_set
link_handover = default_client.link_handover
ovs_add_br = default_client.ovs_add_br
ovs_del_br = default_client.ovs_del_br
ovs_add_port = default_client.ovs_add_port
ovs_del_port = default_client.ovs_del_port
ovs_set_flows = default_client.ovs_set_flows
ovs_set_qos = default_client.ovs_set_qos
ovs_set_meter = default_client.ovs_set_meter
ovs_list = default_client.ovs_list
container_look = default_client.container_look
container_attach = default_client.container_attach
container_detach = default_client.container_detach
wg_setup = default_client.wg_setup
wg_set_peers = default_client.wg_set_peers
wg_teardown = default_client.wg_teardown
wg_show = default_client.wg_show
generate_wallet = default_client.generate_wallet
addressbook_save = default_client.addressbook_save
broker_renew = default_client.broker_renew
ledger_append = default_client.ledger_append
ledger_anchored = default_client.ledger_anchored
ledger_blob = default_client.ledger_blob
ledger_shred = default_client.ledger_shred
ledger_prune = default_client.ledger_prune
ledger_cosign = default_client.ledger_cosign
ledger_rotate_key = default_client.ledger_rotate_key
agent_info = default_client.agent_info

__all__ = [
    "addressbook_save",
    "agent_info",
    "broker_renew",
    "container_attach",
    "container_detach",
    "container_look",
    "generate_wallet",
    "ip6_route_add",
    "ip6_route_del",
    "iptables_close",
    "iptables_list",
    "iptables_open",
    "iptables_set",
    "ledger_anchored",
    "ledger_append",
    "ledger_blob",
    "ledger_cosign",
    "ledger_prune",
    "ledger_rotate_key",
    "ledger_shred",
    "link_handover",
    "link_set",
    "masquerade_list",
    "masquerade_set",
    "nat_list",
    "nat_map",
    "nat_set",
    "nat_unmap",
    "ovs_add_br",
    "ovs_add_port",
    "ovs_del_br",
    "ovs_del_port",
    "ovs_list",
    "ovs_set_flows",
    "ovs_set_meter",
    "ovs_set_qos",
    "pct_config",
    "pct_create",
    "pct_destroy",
    "pct_exec",
    "pct_list",
    "pct_set",
    "pct_shutdown",
    "pct_start",
    "pct_status",
    "pct_stop",
    "proxy_del",
    "proxy_set",
    "pve_set_throttle",
    "qm_clone",
    "qm_config",
    "qm_create",
    "qm_destroy",
    "qm_guest_exec",
    "qm_guest_ping",
    "qm_importdisk",
    "qm_list",
    "qm_metrics",
    "qm_resize",
    "qm_set",
    "qm_shutdown",
    "qm_start",
    "qm_status",
    "qm_stop",
    "qm_template",
    "route_del",
    "route_from_del",
    "route_from_set",
    "route_set",
    "sysctl_set",
    "tc_rate_limit",
    "veth_rename",
    "virt_customize",
    "vm_throttle",
    "wg_set_peers",
    "wg_setup",
    "wg_show",
    "wg_teardown",
]
