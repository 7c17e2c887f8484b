// Generated from the catalog by `make clients`; do not edit.

/** Why the agent said no. */
export type ErrorCode =
  | "bad_frame"
  | "bad_json"
  | "unknown_action"
  | "bad_params"
  | "forbidden"
  | "not_found"
  | "conflict"
  | "busy"
  | "timeout"
  | "failed"
  | "internal";

/** Every action of the catalog. */
export type ActionName =
  | "qm-start"
  | "qm-stop"
  | "qm-template"
  | "qm-shutdown"
  | "qm-destroy"
  | "qm-create"
  | "qm-set"
  | "qm-importdisk"
  | "qm-clone"
  | "qm-resize"
  | "qm-status"
  | "qm-config"
  | "qm-list"
  | "qm-guest-ping"
  | "qm-guest-exec"
  | "pct-create"
  | "pct-start"
  | "pct-stop"
  | "pct-shutdown"
  | "pct-destroy"
  | "pct-status"
  | "pct-config"
  | "pct-list"
  | "pct-set"
  | "pct-exec"
  | "vm-throttle"
  | "pve-set-throttle"
  | "tc-rate-limit"
  | "virt-customize"
  | "ip6-route-add"
  | "ip6-route-del"
  | "iptables-open"
  | "iptables-close"
  | "nat-map"
  | "nat-unmap"
  | "veth-rename"
  | "ovs-add-br"
  | "ovs-del-br"
  | "ovs-add-port"
  | "ovs-del-port"
  | "ovs-set-flows"
  | "ovs-set-qos"
  | "ovs-set-meter"
  | "ovs-list"
  | "wg-setup"
  | "wg-set-peers"
  | "wg-teardown"
  | "wg-show"
  | "generate-wallet"
  | "addressbook-save"
  | "ledger-append"
  | "ledger-anchored"
  | "ledger-blob"
  | "ledger-shred"
  | "agent-info";

/** Every code that an answer may carry. */
export const errorCodes: readonly ErrorCode[];

/** The longest that each action may run, in seconds. */
export const timeLimitsS: Readonly<Record<ActionName, number>>;
