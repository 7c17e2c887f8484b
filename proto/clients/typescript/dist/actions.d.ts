// Generated from the catalog by `make clients`; do not edit.

import type { CallOptions, Reply } from "./transport.js";

export interface IptablesSetRule {
  comment: string;
  port: number;
  proto?: "tcp" | "udp";
  source?: string;
}

export interface NatSetPair {
  comment: string;
  "private": string;
  "public": string;
}

export interface OvsAddBrOptions {
  datapath_type?: "system" | "netdev";
  fail_mode?: "standalone" | "secure";
  hwaddr?: string;
  mcast_snooping?: boolean;
  mtu?: number;
}

export interface OvsSetFlowsFlowActionOutput {
  output: string | number;
}

export interface OvsSetFlowsFlowActionResubmit {
  resubmit: number;
}

export interface OvsSetFlowsFlowActionGotoTable {
  goto_table: number;
}

export interface OvsSetFlowsFlowActionSetField {
  set_field: Readonly<Record<string, unknown>>;
}

export interface OvsSetFlowsFlowActionLoad {
  load: Readonly<Record<string, unknown>>;
}

export interface OvsSetFlowsFlowActionMove {
  move: Readonly<Record<string, unknown>>;
}

export interface OvsSetFlowsFlowActionPushVlan {
  push_vlan: number;
}

export interface OvsSetFlowsFlowActionSetQueue {
  set_queue: number;
}

export interface OvsSetFlowsFlowActionMeter {
  meter: number;
}

export interface OvsSetFlowsFlowActionCt {
  ct: Readonly<Record<string, unknown>>;
}

export interface OvsSetFlowsFlowActionConjunction {
  conjunction: Readonly<Record<string, unknown>>;
}

export interface OvsSetFlowsFlowMatch {
  arp_op?: number;
  arp_sha?: string;
  arp_spa?: string;
  arp_tha?: string;
  arp_tpa?: string;
  conj_id?: number;
  ct_mark?: number | Readonly<Record<string, unknown>>;
  ct_state?: Readonly<Record<string, unknown>>;
  ct_zone?: number;
  dl_dst?: string;
  dl_src?: string;
  dl_type?: string | number;
  icmp_code?: number;
  icmp_type?: number;
  in_port?: string | number;
  ip_dscp?: number;
  ipv6_dst?: string;
  ipv6_src?: string;
  metadata?: number | Readonly<Record<string, unknown>>;
  nd_sll?: string;
  nd_target?: string;
  nd_tll?: string;
  nw_dst?: string;
  nw_frag?: string;
  nw_proto?: string | number;
  nw_src?: string;
  nw_ttl?: number;
  pkt_mark?: number | Readonly<Record<string, unknown>>;
  reg0?: number | Readonly<Record<string, unknown>>;
  reg1?: number | Readonly<Record<string, unknown>>;
  reg10?: number | Readonly<Record<string, unknown>>;
  reg11?: number | Readonly<Record<string, unknown>>;
  reg12?: number | Readonly<Record<string, unknown>>;
  reg13?: number | Readonly<Record<string, unknown>>;
  reg14?: number | Readonly<Record<string, unknown>>;
  reg15?: number | Readonly<Record<string, unknown>>;
  reg2?: number | Readonly<Record<string, unknown>>;
  reg3?: number | Readonly<Record<string, unknown>>;
  reg4?: number | Readonly<Record<string, unknown>>;
  reg5?: number | Readonly<Record<string, unknown>>;
  reg6?: number | Readonly<Record<string, unknown>>;
  reg7?: number | Readonly<Record<string, unknown>>;
  reg8?: number | Readonly<Record<string, unknown>>;
  reg9?: number | Readonly<Record<string, unknown>>;
  tp_dst?: number | Readonly<Record<string, unknown>>;
  tp_src?: number | Readonly<Record<string, unknown>>;
  tun_dst?: string;
  tun_id?: number | Readonly<Record<string, unknown>>;
  tun_src?: string;
  vlan?: string | number;
  vlan_pcp?: number;
}

export interface OvsSetFlowsFlow {
  actions: readonly ("drop" | "normal" | "flood" | "in_port" | "local" | "dec_ttl" | "pop_vlan" | "pop_queue" | OvsSetFlowsFlowActionOutput | OvsSetFlowsFlowActionResubmit | OvsSetFlowsFlowActionGotoTable | OvsSetFlowsFlowActionSetField | OvsSetFlowsFlowActionLoad | OvsSetFlowsFlowActionMove | OvsSetFlowsFlowActionPushVlan | OvsSetFlowsFlowActionSetQueue | OvsSetFlowsFlowActionMeter | OvsSetFlowsFlowActionCt | OvsSetFlowsFlowActionConjunction)[];
  columns?: readonly string[];
  hard_timeout?: number;
  idle_timeout?: number;
  match?: OvsSetFlowsFlowMatch;
  priority?: number;
  rows?: readonly (readonly unknown[])[];
  table?: number;
}

export interface OvsSetQosQueue {
  burst_kbit?: number;
  max_kbps?: number;
  min_kbps?: number;
  priority?: number;
  queue: number;
}

export interface WgSetPeersPeer {
  allowed_ips: readonly string[];
  endpoint?: string;
  keepalive?: number;
  preshared?: string;
  public_key: string;
}

export interface AddressbookSaveEntry {
  address: string;
  keyfile?: string;
}

export interface AgentInfoCounters {
  connections: number;
  connections_refused: number;
  failed: number;
  in_flight: number;
  open_connections: number;
  refused: number;
  requests: number;
  succeeded: number;
}

export interface AgentInfoLedger {
  root: string;
  size: number;
}

export interface QmImportdiskReply extends Reply {
  /** The volume that was made, such as `local:100/vm-100-disk-0.raw`. */
  volume?: string;
  /** Format of the image: `qcow2` or `raw`. */
  format: string;
}

export interface QmGuestExecReply extends Reply {
  /** Exit code of the command; 128 and the number of the signal that ended it. */
  exitcode: number;
  /** What it wrote; of a long text its beginning and its end. */
  stdout: string;
  /** What it wrote to standard error, likewise. */
  stderr: string;
}

export interface PctExecReply extends Reply {
  /** Exit code of the command; 128 and the number of the signal that ended it. */
  exitcode: number;
  /** What it wrote; of a long text its beginning and its end. */
  stdout: string;
  /** What it wrote to standard error, likewise. */
  stderr: string;
}

export interface VirtCustomizeReply extends Reply {
  /** Format of the image: `qcow2` or `raw`. */
  format: string;
}

export interface IptablesListReply extends Reply {
  /** Whether nothing else stands in our chain, nothing twice, and it is in effect. */
  clean: boolean;
}

export interface NatListReply extends Reply {
  /** Whether nothing else stands in our chains, nothing twice, and they are in effect. */
  clean: boolean;
}

export interface SysctlSetReply extends Reply {
  /** Whether it was on before. */
  before: boolean;
}

export interface VethRenameReply extends Reply {
  /** The name that the interface can be found by now. */
  name: string;
}

export interface LinkSetReply extends Reply {
  /** Whether it is up now. */
  up: boolean;
  /** Its MTU now. */
  mtu: number;
  /** Its addresses, with the length of their networks; those of the link alone left out. */
  addresses: readonly string[];
  /** Whether IPv4 packets that come in by it are forwarded. */
  forward: boolean;
}

export interface LinkHandoverReply extends Reply {
  /** Its addresses, with the length of their networks; those of the link alone left out. */
  addresses: readonly string[];
  /** How many routes were moved by this request. */
  routes: number;
}

export interface OvsAddPortReply extends Reply {
  /** The port's OpenFlow number. */
  ofport: number;
}

export interface OvsSetFlowsReply extends Reply {
  /** Flows that were not there before. */
  added: number;
  /** Flows whose actions or timeouts are others now. */
  changed: number;
  /** Flows that are gone. */
  removed: number;
}

export interface ContainerLookReply extends Reply {
  /** Number of the network namespace. */
  netns: number;
}

export interface ContainerAttachReply extends Reply {
  /** Hardware address of the end inside. */
  mac: string;
  /** Whether the wire was made by this request. */
  "new": boolean;
}

export interface WgSetupReply extends Reply {
  /** The tunnel's public key, base64. */
  public_key: string;
  /** The UDP port that it listens on. */
  listen_port: number;
}

export interface WgSetPeersReply extends Reply {
  /** Public key to shared key, for peers with `generate`: what the other side needs. */
  preshared_keys?: Readonly<Record<string, string>>;
}

export interface GenerateWalletReply extends Reply {
  /** Address of the new wallet, with the checksum of EIP-55. */
  address: string;
  /** Path of the key on the host. */
  keyfile: string;
}

export interface BrokerRenewReply extends Reply {
  /** The prefix that the host has now. */
  prefix: string;
  /** The prefix before, where it was another one. */
  previous?: string;
}

export interface LedgerBlobReply extends Reply {
  /** Hash of the ciphertext: the name of the blob. */
  sha256: string;
}

export interface LedgerPruneReply extends Reply {
  /** Height of the first record without its payload now. */
  first: number;
  /** Height of the last one. */
  last: number;
  /** Bytes of payloads that were deleted. */
  bytes: number;
  /** Height of the record that says so. */
  record: number;
  /** How many more of such parts there are below `before` that are old enough. */
  left: number;
}

export interface LedgerCosignReply extends Reply {
  /** How many witnesses have cosigned this head. */
  witnesses: number;
}

export interface LedgerRotateKeyReply extends Reply {
  /** Number of the new epoch. */
  epoch: number;
  /** Its verifier key. */
  vkey: string;
}

export interface AgentInfoReply extends Reply {
  /** Version of the agent. */
  version: string;
  /** `proxmox` or `embedded`. */
  backend: string;
  /** Landlock ABI in force; 0 without. */
  landlock_abi: number;
  /** Seconds since the agent started. */
  uptime_s: number;
  /** Connections and requests since the front started. */
  counters: AgentInfoCounters;
  /** Number of records and Merkle root of the ledger. */
  ledger: AgentInfoLedger;
}

/**
 * Starts a machine; one that runs already is a success.
 *
 * @param vmid Number of the machine.
 */
export function qmStart(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Stops a machine at once, as if its power were cut; one that is stopped already is a success.
 *
 * @param vmid Number of the machine.
 */
export function qmStop(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Turns a stopped machine into a template.
 *
 * @param vmid Number of the machine.
 */
export function qmTemplate(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Asks the guest to shut down and waits; never forces it. Answers `timeout` when the guest ignores it.
 *
 * @param vmid Number of the machine.
 * @param timeout How long to wait, in seconds. Without it `120`.
 */
export function qmShutdown(vmid: number, timeout?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Destroys a stopped machine with its disks. Refuses templates unless asked for one.
 *
 * @param vmid Number of the machine.
 * @param template Say true to destroy a template. Without it `false`.
 */
export function qmDestroy(vmid: number, template?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Creates a machine.
 *
 * @param vmid Number of the new machine.
 * @param name Its name.
 * @param args Its options, as a flat list `["--memory", "2048", ...]` or as pairs `[["--memory", "2048"], ...]`.
 */
export function qmCreate(vmid: number, name: string, args: readonly (readonly (string | number)[])[] | readonly (string | number)[], callOptions?: CallOptions): Promise<Reply>;

/**
 * Changes options of a machine.
 *
 * @param vmid Number of the machine.
 * @param options Options and their new values.
 */
export function qmSet(vmid: number, options: Readonly<Record<string, string | number>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Imports a disk image as an unused disk of a machine.
 *
 * @param vmid Number of the machine.
 * @param diskPath The image: a path below an allowed image directory.
 * @param storage Storage to import to.
 */
export function qmImportdisk(vmid: number, diskPath: string, storage: string, callOptions?: CallOptions): Promise<QmImportdiskReply>;

/**
 * Clones a machine or template.
 *
 * @param vmid Number of the machine to clone.
 * @param newid Number of the new machine.
 * @param name Name of the new machine.
 * @param full Copy the disks instead of linking to them. Without it `false`.
 */
export function qmClone(vmid: number, newid: number, name: string, full?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Grows a disk; never shrinks one.
 *
 * @param vmid Number of the machine.
 * @param disk The drive, such as `scsi0`.
 * @param size New size (`20G`) or growth (`+10G`).
 */
export function qmResize(vmid: number, disk: string, size: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * State of a machine, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the machine.
 */
export function qmStatus(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Configuration of a machine, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the machine.
 */
export function qmConfig(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * All machines, as a JSON array in `output`.
 * Changes nothing.
 */
export function qmList(callOptions?: CallOptions): Promise<Reply>;

/**
 * What machines but templates have used so far, as a JSON array of counters in `output`.
 * Changes nothing.
 *
 * @param vmid Only this machine.
 */
export function qmMetrics(vmid?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Asks the guest agent whether it answers.
 * Changes nothing.
 *
 * @param vmid Number of the machine.
 */
export function qmGuestPing(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Runs a command inside the guest, through its agent and its `/bin/sh -c`. Answers `exitcode`, `stdout`,
 * `stderr`.
 *
 * @param vmid Number of the machine.
 * @param command The command line.
 * @param timeout How long it may take, in seconds. Without it `60`.
 * @param secret The command holds a secret: log and ledger keep a salted digest of it. Without it `false`.
 */
export function qmGuestExec(vmid: number, command: string, timeout?: number, secret?: boolean, callOptions?: CallOptions): Promise<QmGuestExecReply>;

/**
 * Creates an unprivileged container. Its root file system is a new volume, so `rootfs` must be among the
 * options.
 *
 * @param vmid Number of the new container.
 * @param template What its root file system is unpacked from: an archive of an allowed storage, or a file below
 * an allowed directory.
 * @param hostname Its host name.
 * @param options Its options and their values.
 */
export function pctCreate(vmid: number, template: string, hostname: string, options: Readonly<Record<string, string | number>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Starts a container; one that runs already is a success.
 *
 * @param vmid Number of the container.
 */
export function pctStart(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Stops a container at once; one that is stopped already is a success.
 *
 * @param vmid Number of the container.
 */
export function pctStop(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Asks the container to shut down and waits; never forces it. Answers `timeout` when it ignores that.
 *
 * @param vmid Number of the container.
 * @param timeout How long to wait, in seconds. Without it `120`.
 */
export function pctShutdown(vmid: number, timeout?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Destroys a stopped container with its root file system. Refuses templates unless asked for one.
 *
 * @param vmid Number of the container.
 * @param template Say true to destroy a template. Without it `false`.
 */
export function pctDestroy(vmid: number, template?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * State of a container, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the container.
 */
export function pctStatus(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Configuration of a container, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the container.
 */
export function pctConfig(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * All containers, as a JSON array in `output`.
 * Changes nothing.
 */
export function pctList(callOptions?: CallOptions): Promise<Reply>;

/**
 * Changes options of a container. What belongs to its creation (`rootfs`, `ssh-public-keys`, `unprivileged`)
 * stays.
 *
 * @param vmid Number of the container.
 * @param options Options and their new values.
 */
export function pctSet(vmid: number, options: Readonly<Record<string, string | number>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Runs a command inside a running container, through its `/bin/sh -c`. Answers `exitcode`, `stdout`, `stderr`.
 *
 * @param vmid Number of the container.
 * @param command The command line.
 * @param timeout How long it may take, in seconds. Without it `60`.
 * @param secret The command holds a secret: log and ledger keep a salted digest of it. Without it `false`.
 */
export function pctExec(vmid: number, command: string, timeout?: number, secret?: boolean, callOptions?: CallOptions): Promise<PctExecReply>;

/**
 * Limits processor, disks and network of a machine. Limits that are not named stay; with `reset` they are
 * removed first. Those on processor and disks are kept with its options; those on the network last while it
 * runs.
 *
 * @param vmid Number of the machine.
 * @param cpuunits Weight among the machines when the processor is short.
 * @param cpulimit Cores that it may use at most; 0 for no limit.
 * @param iopsRd Reads per second, of each disk.
 * @param iopsWr Writes per second, of each disk.
 * @param rateInKbps What it may receive, in kilobits (1000 bits) per second, on each interface.
 * @param rateOutKbps What it may send, in kilobits (1000 bits) per second, on each interface.
 * @param reset Remove all limits before setting those that are given. Without it `false`.
 */
export function vmThrottle(vmid: number, cpuunits?: number, cpulimit?: string | number, iopsRd?: number, iopsWr?: number, rateInKbps?: number, rateOutKbps?: number, reset?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Limits processor and disks of a machine: `vm-throttle` without the network.
 *
 * @param vmid Number of the machine.
 * @param cpuunits Weight among the machines when the processor is short.
 * @param cpulimit Cores that it may use at most; 0 for no limit.
 * @param iopsRd Reads per second, of each disk.
 * @param iopsWr Writes per second, of each disk.
 * @param reset Remove these limits before setting those that are given. Without it `false`.
 */
export function pveSetThrottle(vmid: number, cpuunits?: number, cpulimit?: string | number, iopsRd?: number, iopsWr?: number, reset?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Limits the network of a machine: `vm-throttle` without processor and disks. Its limits last while the machine
 * runs.
 *
 * @param vmid Number of the machine.
 * @param rateInKbps What it may receive, in kilobits (1000 bits) per second, on each interface.
 * @param rateOutKbps What it may send, in kilobits (1000 bits) per second, on each interface.
 * @param reset Remove these limits before setting those that are given. Without it `false`.
 */
export function tcRateLimit(vmid: number, rateInKbps?: number, rateOutKbps?: number, reset?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Changes the inside of a disk image, operation by operation, in the order given. The image is replaced only
 * when all of them have succeeded.
 *
 * @param imagePath The image: a path below an allowed image directory.
 * @param commands The operations, each as a list of its name (with or without `--`) and its one argument,
 * written as the tool of that name takes it: `["install", "nginx,curl"]`, `["write", "/etc/motd:hello"]`,
 * `["copy-in", "site:/var/www"]`.
 */
export function virtCustomize(imagePath: string, commands: readonly (readonly string[])[], callOptions?: CallOptions): Promise<VirtCustomizeReply>;

/**
 * Sets the route to one address, replacing another; the same again is a success.
 *
 * @param address The address, with `/128`.
 * @param dev The device that leads to it.
 */
export function ip6RouteAdd(address: string, dev: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Deletes the route to one address; `not_found` where there is none.
 *
 * @param address The address, with `/128`.
 * @param dev The device that leads to it.
 */
export function ip6RouteDel(address: string, dev: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Sets the route to a network in the main table, such as that of containers behind a tunnel: another route of
 * this agent to the same network with the same metric is replaced in one step, the same again changes nothing. A
 * route that somebody else made is a `conflict` and stays.
 *
 * @param dest The network.
 * @param dev The device that leads to it.
 * @param via The router on that device; none where the network is at the device itself.
 * @param src The host's address that is used for what it sends there.
 * @param metric Of several routes to the network the one with the lowest is taken. Without it `1024`.
 */
export function routeSet(dest: string, dev: string, via?: string, src?: string, metric?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Deletes a route that `route-set` made; `not_found` where there is none.
 *
 * @param dest The network.
 * @param dev The device that leads to it.
 * @param metric The metric that the route was set with. Without it `1024`.
 */
export function routeDel(dest: string, dev: string, metric?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Sends out of a tunnel of this agent what comes from a network of machines and has no route of its own: a
 * default route in the main table for packets with a source of that network, and for no others. What the host
 * sends from another address goes as before. Another such route of this agent is replaced, the same again
 * changes nothing; one that somebody else made, or a network that is at a device of somebody else's, is a
 * `conflict`.
 *
 * @param from The network that the packets come from.
 * @param dev The tunnel that leads out.
 */
export function routeFromSet(from: string, dev: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Deletes a route that `route-from-set` made; `not_found` where there is none.
 *
 * @param from The network that the packets come from.
 * @param dev The tunnel that the route goes out of.
 */
export function routeFromDel(from: string, dev: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Accepts packets to a port; the same again adds nothing.
 *
 * @param port The port.
 * @param proto Transport protocol. Without it `"tcp"`.
 * @param comment Marks the rule as its owner's.
 * @param source Only packets from there; both families where it is missing.
 */
export function iptablesOpen(port: number, proto: "tcp" | "udp" | undefined, comment: string, source?: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Removes exactly the rule that the same parameters opened; `not_found` where there is none.
 *
 * @param port The port.
 * @param proto Transport protocol. Without it `"tcp"`.
 * @param comment The comment that the rule was opened with.
 * @param source The source that the rule was opened with.
 */
export function iptablesClose(port: number, proto: "tcp" | "udp" | undefined, comment: string, source?: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * The ports that are open now, as a JSON array in `output`, from the rules themselves: `port`, `proto`,
 * `comment`, `source` where there is one, and under `families` the families that the rule stands in, `IPv4` and
 * `IPv6`. Rules in our chain that nobody here made are not shown.
 * Changes nothing.
 */
export function iptablesList(callOptions?: CallOptions): Promise<IptablesListReply>;

/**
 * Opens these ports and no others: whatever else stands in our chain goes, also what nobody here made. All of it
 * in one step for each family; other chains and tables are left alone, and the same again changes nothing.
 *
 * @param rules All ports that are open from now on.
 */
export function iptablesSet(rules: readonly IptablesSetRule[], callOptions?: CallOptions): Promise<Reply>;

/**
 * Sends what comes for the public address to the private one, and lets the private one appear as the public one.
 *
 * @param public_ The public address, of a pool of this host.
 * @param private_ The private address behind it, of the same family.
 * @param comment Marks the pair as its owner's.
 */
export function natMap(public_: string, private_: string, comment: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Removes exactly the pair that the same parameters made, and forgets the connections that used it; `not_found`
 * where there is none.
 *
 * @param public_ The public address.
 * @param private_ The private address behind it.
 * @param comment The comment that the pair was made with.
 */
export function natUnmap(public_: string, private_: string, comment: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * The pairs that stand now, as a JSON array in `output`, from the rules themselves: `public`, `private`,
 * `comment`, and `whole`, which is false where one of the two directions is missing. Rules of ours that nobody
 * here made are not shown.
 * Changes nothing.
 */
export function natList(callOptions?: CallOptions): Promise<NatListReply>;

/**
 * Maps these pairs and no others: whatever else stands in our chains goes, also what nobody here made, and the
 * connections of pairs that are gone are forgotten. All of it in one step for each family; the same again
 * changes nothing.
 *
 * @param pairs All pairs that stand from now on.
 */
export function natSet(pairs: readonly NatSetPair[], callOptions?: CallOptions): Promise<Reply>;

/**
 * Answers ARP requests or neighbour solicitations for a public address on the uplink, and sets the route to it,
 * so that what comes for it comes here and goes on, with `nat-map` to a private address. IPv4 packets that come
 * in by the uplink are forwarded from then on; for IPv6 the host has to forward and to have `proxy_ndp` on,
 * which Linux lets no netlink request do. What somebody else set is a `conflict` and stays.
 *
 * @param address The public address, of a pool of this host.
 * @param dev The device where others ask for it: an uplink of the policy.
 * @param behind The device that leads to who has it, another one.
 */
export function proxySet(address: string, dev: string, behind: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Answers for the address no more and takes its route away; `not_found` where `proxy-set` did not set it on this
 * device.
 *
 * @param address The public address.
 * @param dev The device where it is answered for.
 */
export function proxyDel(address: string, dev: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Lets packets from these networks, and from no others, leave by a tunnel with the host's own address there as
 * their source: for others in the mesh that know no way back to the networks. What was set for the tunnel before
 * is replaced, in one step for each family; an empty list ends it. Connections that are under way keep what they
 * have. It comes before public addresses of `nat-map`, which are none that a peer would take.
 *
 * @param dev The tunnel, one of this agent.
 * @param networks All networks whose packets get the host's address there from now on.
 */
export function masqueradeSet(dev: string, networks: readonly string[], callOptions?: CallOptions): Promise<Reply>;

/**
 * What `masquerade-set` set, as a JSON array in `output`, from the rules themselves: `dev`, `network`, and
 * `whole`, which is false where the rule is there and not in effect.
 * Changes nothing.
 */
export function masqueradeList(callOptions?: CallOptions): Promise<Reply>;

/**
 * Switches one setting of the host's network, of those that the policy lists. `ipv4-forwarding` and `ipv6-proxy`
 * are of an uplink, `ipv6-forwarding` of the whole host. Where the kernel takes the host's own way out from
 * routers' advertisements, it would forget it with `ipv6-forwarding`: uplinks are told before to keep it, and
 * where such a way leads out of another device the request is refused. The same again changes nothing; the
 * opposite takes it back. None of it outlives a start of the machine.
 *
 * @param setting Which.
 * @param on Whether it is on from now on.
 * @param dev The device that it is of: an uplink of the policy; none for `ipv6-forwarding`.
 */
export function sysctlSet(setting: "ipv4-forwarding" | "ipv6-forwarding" | "ipv6-proxy", on: boolean, dev?: string, callOptions?: CallOptions): Promise<SysctlSetReply>;

/**
 * Gives the host's end of a container's interface, `veth<vmid>i<index>`, the alternative name `vi<vmid>`, or
 * `vi<vmid>_<index>` for all but the first. Its own name stays: the container manager depends on it.
 *
 * @param vmid The container.
 * @param index Which of its interfaces: 0 is `net0`.
 */
export function vethRename(vmid: number, index?: number, callOptions?: CallOptions): Promise<VethRenameReply>;

/**
 * Brings a device of this host to this state: bridges, switches' own devices, tunnels and the host's ends of
 * machines' interfaces, as the policy lists them. What is not given stays as it is, and only the difference is
 * applied; what fails half-way is taken back. A machine's interface is also found by the name that `veth-rename`
 * gave it.
 *
 * @param dev The device.
 * @param up Whether it is up.
 * @param mtu Its MTU in bytes.
 * @param addresses All its addresses from now on, but for those that the kernel makes and those of the link
 * alone.
 * @param forward Whether IPv4 packets that come in by it are forwarded; where they are, one whose way back leads
 * out of another device is dropped. IPv6 has no such setting of one device.
 */
export function linkSet(dev: string, up?: boolean, mtu?: number, addresses?: readonly string[], forward?: boolean, callOptions?: CallOptions): Promise<LinkSetReply>;

/**
 * Moves all addresses and routes of a device to another: from an uplink to the bridge that it became a port of,
 * which takes over its hardware address, and back to the uplink, which keeps its own. Each is given to the one
 * before it is taken from the other; what fails is undone, and after an interruption the same request goes on
 * where it ended. Addresses of the link alone stay. To give a bridge's addresses back, `keep` has those that it
 * had before, and the uplink stays its port until that is done: a switch in user space takes its device down
 * when its ports change, and with that go routes.
 *
 * @param from The device that has them: an uplink or a bridge of the policy.
 * @param to The device that gets them, likewise.
 * @param keep Addresses that stay, with the routes into their networks.
 */
export function linkHandover(from: string, to: string, keep?: readonly string[], callOptions?: CallOptions): Promise<LinkHandoverReply>;

/**
 * Makes a bridge and waits until the switch has it; one that this agent made already is a success, and is
 * changed to these options. Its flows and meters stay when `fail_mode` changes, with which the switch alone
 * would drop them. Where they may be lost (the switch stands still, the agent is killed) it fails and says so;
 * asked for again it succeeds with `flows_lost`, which `ovs-list` says as well, until the flows are there again.
 *
 * @param bridge The bridge.
 * @param options How it is made. Without it `{}`.
 */
export function ovsAddBr(bridge: string, options?: OvsAddBrOptions, callOptions?: CallOptions): Promise<Reply>;

/**
 * Deletes a bridge that this agent made, with its ports and flows; `not_found` where there is none, `conflict`
 * where the host has its own addresses or way out on a device of it.
 *
 * @param bridge The bridge.
 */
export function ovsDelBr(bridge: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Attaches a port, waits until the switch has acted, and reports what the switch says about the device.
 *
 * @param bridge The bridge.
 * @param port The device.
 * @param tag Its VLAN: packets come and go without the tag.
 * @param trunks VLANs that it carries tagged.
 * @param vmid The machine that it belongs to, kept beside the port.
 * @param kind `internal` makes the device, `system` takes an existing one. Without it `"system"`.
 * @param attachedMac Hardware address of the machine's end, kept beside the port.
 * @param ifaceId Name of the interface inside the machine, kept beside the port.
 */
export function ovsAddPort(bridge: string, port: string, tag?: number, trunks?: readonly number[], vmid?: number, kind?: "system" | "internal", attachedMac?: string, ifaceId?: string, callOptions?: CallOptions): Promise<OvsAddPortReply>;

/**
 * Detaches a port that this agent attached; `not_found` where there is none, `conflict` for an internal one
 * whose device has the host's own addresses or way out, and for one of `allow.uplinks` that the host's only way
 * out leads over, unless another of them is on the same bridge and VLANs and has carrier.
 *
 * @param bridge The bridge.
 * @param port The device.
 */
export function ovsDelPort(bridge: string, port: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Replaces all flows of one owner on a bridge, all or nothing; an empty list removes them. Answers how many were
 * added, changed and removed.
 *
 * @param bridge The bridge.
 * @param owner Whose flows they are. Other owners' flows stay.
 * @param flows The flows, see "Flows" below.
 */
export function ovsSetFlows(bridge: string, owner: string, flows: readonly OvsSetFlowsFlow[], callOptions?: CallOptions): Promise<OvsSetFlowsReply>;

/**
 * Sets a port's limit and queues, replacing those it had; without `max_kbps` and queues it removes them.
 *
 * @param bridge The bridge.
 * @param port The port.
 * @param maxKbps What all of its traffic to the machine may use, in kbit/s.
 * @param queues Its queues, for `set_queue`. Without it `[]`.
 * @param ingressKbps What the machine may send, in kbit/s; more is dropped.
 * @param ingressBurstKbit Burst of `ingress_kbps`, in kbit.
 */
export function ovsSetQos(bridge: string, port: string, maxKbps?: number, queues?: readonly OvsSetQosQueue[], ingressKbps?: number, ingressBurstKbit?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Sets a meter of a bridge; without `rate` it removes the meter.
 *
 * @param bridge The bridge.
 * @param meter Its number, what the flow action `meter` names.
 * @param unit What it counts. Without it `"kbps"`.
 * @param rate What may pass per second; more is dropped.
 * @param burst What may pass at once, in kilobits or packets.
 */
export function ovsSetMeter(bridge: string, meter: number, unit?: "kbps" | "pktps", rate?: number, burst?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Bridges, ports, flows and counters, as JSON in `output`.
 * Changes nothing.
 *
 * @param bridge Only this bridge.
 * @param flows With the flows and their counters. Without it `false`.
 * @param owner Only flows of this owner.
 */
export function ovsList(bridge?: string, flows?: boolean, owner?: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Says which network namespace a process is in, by the number that `container-attach` wants to hear again. A
 * process in the host's own network is `forbidden`. Ask the container manager for the process once before and
 * once after: where both answers are the same, the number is that of the container.
 * Changes nothing.
 *
 * @param pid A process of the container.
 */
export function containerLook(pid: number, callOptions?: CallOptions): Promise<ContainerLookReply>;

/**
 * Makes a virtual wire with one end on the host and the other in the network namespace of a process, and gives
 * the end inside its hardware address, MTU, addresses and default routes. The end inside is never on the host:
 * the kernel makes it where it belongs. The same again changes what differs; what fails is taken back. A process
 * that is in another namespace than the one named, or in the host's, is refused, and so is a name that is taken
 * by somebody else.
 *
 * @param container The manager's full id of the container, kept beside both ends.
 * @param pid A process of the container.
 * @param netns The network namespace that it has to be in, as `container-look` says it.
 * @param port Name of the end on the host.
 * @param interface_ Name of the end inside.
 * @param addresses All addresses of the end inside from now on.
 * @param mac Hardware address of the end inside; the kernel chooses one where none is given.
 * @param mtu MTU of both ends.
 * @param gateway4 Router for everything else of IPv4, in a network of the addresses.
 * @param gateway6 Router for everything else of IPv6, in a network of the addresses or one of the link.
 */
export function containerAttach(container: string, pid: number, netns: number, port: string, interface_: string, addresses: readonly string[], mac?: string, mtu?: number, gateway4?: string, gateway6?: string, callOptions?: CallOptions): Promise<ContainerAttachReply>;

/**
 * Removes the wire that `container-attach` made for the container, with both ends; `not_found` where there is
 * none. What another program or another container has by that name stays.
 *
 * @param container The container.
 * @param port Name of the end on the host.
 */
export function containerDetach(container: string, port: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Makes a tunnel, or brings one of this agent's to these values; its private key is made the first time and
 * kept. Answers `public_key` and `listen_port`.
 *
 * @param name The tunnel's interface.
 * @param addresses The interface's addresses, with the length of their networks.
 * @param listenPort UDP port to listen on; one is chosen where it is missing.
 * @param mtu MTU inside the tunnel, 1420 where it is missing.
 */
export function wgSetup(name: string, addresses: readonly string[], listenPort?: number, mtu?: number, callOptions?: CallOptions): Promise<WgSetupReply>;

/**
 * Replaces the peers of a tunnel in one step; sessions of peers that stay are not disturbed. Answers
 * `preshared_keys` for those it generated. With `kept` a peer gets the shared key that it had last; `not_found`
 * where none is known.
 *
 * @param name The tunnel's interface.
 * @param peers All its peers from now on.
 */
export function wgSetPeers(name: string, peers: readonly WgSetPeersPeer[], callOptions?: CallOptions): Promise<WgSetPeersReply>;

/**
 * Removes a tunnel of this agent with its keys; `not_found` where there is none.
 *
 * @param name The tunnel's interface.
 */
export function wgTeardown(name: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * A tunnel as JSON in `output`: public key, port, addresses, and per peer endpoint, networks, last handshake and
 * bytes. No secret key.
 * Changes nothing.
 *
 * @param name The tunnel's interface.
 */
export function wgShow(name: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Makes a secp256k1 key in `/etc/blockhost/<name>.key` and an address-book entry. Never overwrites a key.
 * Answers `address` and `keyfile`.
 *
 * @param name Name of the wallet; `admin`, `server`, `dev` and `broker` are refused.
 */
export function generateWallet(name: string, callOptions?: CallOptions): Promise<GenerateWalletReply>;

/**
 * Replaces the address book atomically. Existing entries `admin`, `server`, `dev` and `broker` change or vanish
 * only when uid 0 asks.
 *
 * @param entries Name -> `{"address": "0x...", "keyfile": "name.key"}`; `keyfile` may be missing.
 */
export function addressbookSave(entries: Readonly<Record<string, AddressbookSaveEntry>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Keeps what a broker gave this host in `/etc/blockhost/broker-allocation.json`, replaced atomically. What other
 * programs wrote there stays; a parameter that is left out stays too, as long as the prefix does. Another prefix
 * than the present one is a `conflict` unless `replace` is true: machines may have addresses of the present one.
 *
 * @param prefix The network that machines draw their addresses from.
 * @param gateway Their router: an address of the network, or a link-local one. The first of the network where
 * there is none.
 * @param brokerPubkey The public key of the broker's end of the tunnel.
 * @param brokerEndpoint Where the broker's end of the tunnel listens.
 * @param leaseUntil When the allocation ends, in seconds since 1970; without end where it is missing.
 * @param replace Also where the host has another prefix now. Without it `false`.
 */
export function brokerRenew(prefix: string, gateway?: string, brokerPubkey?: string, brokerEndpoint?: string, leaseUntil?: number, replace?: boolean, callOptions?: CallOptions): Promise<BrokerRenewReply>;

/**
 * Records an event in the caller's name. The agent stamps who it was; such a record cannot pass for one of its
 * own.
 *
 * @param category Category of the event, such as `chain` or `network`.
 * @param action What happened, such as `subscription-created`; never the name of an action of this catalog.
 * @param data The details.
 * @param resource What it happened to.
 */
export function ledgerAppend(category: string, action: string, data: Readonly<Record<string, unknown>>, resource?: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Records that a head of this ledger was anchored on a chain. The agent checks with the proof that the head is
 * one of its own history; chain, contract, transaction and block are what the caller says.
 *
 * @param chainId Id of the chain.
 * @param contract The contract `LedgerAnchor`.
 * @param tx The transaction that anchored it.
 * @param block The block of that transaction.
 * @param size Number of records of the anchored head.
 * @param root Its RFC 6962 root.
 * @param headSize Number of records of a head that the ledger has now, or had a moment ago.
 * @param proof RFC 6962 consistency proof from the anchored head to that one; empty when it is the same.
 */
export function ledgerAnchored(chainId: number, contract: string, tx: string, block: number, size: number, root: string, headSize: number, proof: readonly string[], callOptions?: CallOptions): Promise<Reply>;

/**
 * Keeps an encrypted file beside the ledger and records in the caller's name what it is about. The record
 * commits to the file by the hash of its ciphertext; erasing the file, or the key to it, leaves every proof
 * valid. Whatever does not have the form of an `age` file is refused.
 *
 * @param category Category of the event, such as `network`.
 * @param action What happened, such as `tenant-network-created`; never the name of an action of this catalog.
 * @param ciphertext The encrypted file.
 * @param data Details that everybody who reads the ledger may know. Without it `{}`.
 * @param resource What it happened to.
 */
export function ledgerBlob(category: string, action: string, ciphertext: string, data?: Readonly<Record<string, unknown>>, resource?: string, callOptions?: CallOptions): Promise<LedgerBlobReply>;

/**
 * Erases an encrypted file of `ledger-blob` for good. The records that commit to it stay, and so does every
 * proof. What was begun is finished by the next start of the agent. Copies elsewhere are beyond it: erase the
 * key, too. A rule permits this by its name only, never by a pattern.
 *
 * @param sha256 Hash of the ciphertext, as `ledger-blob` answered it.
 * @param reason Why, for whoever asks later.
 */
export function ledgerShred(sha256: string, reason: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Deletes the payloads of the oldest 65536 records that still have theirs, where all of them stand below
 * `before` and are older than `limits.ledger_retention_days`. Hashes, signatures and every proof stay; a record
 * says so before anything is deleted. Damage is not deleted but reported. What was begun is finished by the next
 * start of the agent. Ask again while `left` is more than 0. A rule permits this by its name only, never by a
 * pattern.
 *
 * @param before Height of the first record that has to stay.
 * @param reason Why, for whoever asks later.
 */
export function ledgerPrune(before: number, reason: string, callOptions?: CallOptions): Promise<LedgerPruneReply>;

/**
 * Takes what witnesses said about a head that was published lately: valid cosignatures of the witnesses in
 * `/etc/blockhost/ledger-witnesses` are kept in the ledger and published with the head. It makes no record: that
 * would be a new head, to be cosigned again.
 *
 * @param checkpoint The checkpoint with the cosignatures.
 */
export function ledgerCosign(checkpoint: string, callOptions?: CallOptions): Promise<LedgerCosignReply>;

/**
 * Begins an epoch of the ledger: makes a new signing key, names it in a record signed with the old one, signs on
 * with the new one, and erases the old one. By default for root alone.
 */
export function ledgerRotateKey(callOptions?: CallOptions): Promise<LedgerRotateKeyReply>;

/**
 * Version, backend, Landlock ABI, uptime, counters and ledger head.
 * Changes nothing.
 */
export function agentInfo(callOptions?: CallOptions): Promise<AgentInfoReply>;
