// Generated from the catalog by `make clients`; do not edit.

import { invoke } from "./transport.js";

export function qmStart(vmid, callOptions) {
  return invoke("qm-start", { vmid }, callOptions);
}

export function qmStop(vmid, callOptions) {
  return invoke("qm-stop", { vmid }, callOptions);
}

export function qmTemplate(vmid, callOptions) {
  return invoke("qm-template", { vmid }, callOptions);
}

export function qmShutdown(vmid, timeout, callOptions) {
  return invoke("qm-shutdown", { vmid, timeout }, callOptions);
}

export function qmDestroy(vmid, template, callOptions) {
  return invoke("qm-destroy", { vmid, template }, callOptions);
}

export function qmCreate(vmid, name, args, callOptions) {
  return invoke("qm-create", { vmid, name, args }, callOptions);
}

export function qmSet(vmid, options, callOptions) {
  return invoke("qm-set", { vmid, options }, callOptions);
}

export function qmImportdisk(vmid, diskPath, storage, callOptions) {
  return invoke("qm-importdisk", { vmid, disk_path: diskPath, storage }, callOptions);
}

export function qmClone(vmid, newid, name, full, callOptions) {
  return invoke("qm-clone", { vmid, newid, name, full }, callOptions);
}

export function qmResize(vmid, disk, size, callOptions) {
  return invoke("qm-resize", { vmid, disk, size }, callOptions);
}

export function qmStatus(vmid, callOptions) {
  return invoke("qm-status", { vmid }, callOptions);
}

export function qmConfig(vmid, callOptions) {
  return invoke("qm-config", { vmid }, callOptions);
}

export function qmList(callOptions) {
  return invoke("qm-list", {}, callOptions);
}

export function qmMetrics(vmid, callOptions) {
  return invoke("qm-metrics", { vmid }, callOptions);
}

export function qmGuestPing(vmid, callOptions) {
  return invoke("qm-guest-ping", { vmid }, callOptions);
}

export function qmGuestExec(vmid, command, timeout, secret, callOptions) {
  return invoke("qm-guest-exec", { vmid, command, timeout, secret }, callOptions);
}

export function pctCreate(vmid, template, hostname, options, callOptions) {
  return invoke("pct-create", { vmid, template, hostname, options }, callOptions);
}

export function pctStart(vmid, callOptions) {
  return invoke("pct-start", { vmid }, callOptions);
}

export function pctStop(vmid, callOptions) {
  return invoke("pct-stop", { vmid }, callOptions);
}

export function pctShutdown(vmid, timeout, callOptions) {
  return invoke("pct-shutdown", { vmid, timeout }, callOptions);
}

export function pctDestroy(vmid, template, callOptions) {
  return invoke("pct-destroy", { vmid, template }, callOptions);
}

export function pctStatus(vmid, callOptions) {
  return invoke("pct-status", { vmid }, callOptions);
}

export function pctConfig(vmid, callOptions) {
  return invoke("pct-config", { vmid }, callOptions);
}

export function pctList(callOptions) {
  return invoke("pct-list", {}, callOptions);
}

export function pctSet(vmid, options, callOptions) {
  return invoke("pct-set", { vmid, options }, callOptions);
}

export function pctExec(vmid, command, timeout, secret, callOptions) {
  return invoke("pct-exec", { vmid, command, timeout, secret }, callOptions);
}

export function vmThrottle(vmid, cpuunits, cpulimit, iopsRd, iopsWr, rateInKbps, rateOutKbps, reset, callOptions) {
  return invoke("vm-throttle", { vmid, cpuunits, cpulimit, iops_rd: iopsRd, iops_wr: iopsWr, rate_in_kbps: rateInKbps, rate_out_kbps: rateOutKbps, reset }, callOptions);
}

export function pveSetThrottle(vmid, cpuunits, cpulimit, iopsRd, iopsWr, reset, callOptions) {
  return invoke("pve-set-throttle", { vmid, cpuunits, cpulimit, iops_rd: iopsRd, iops_wr: iopsWr, reset }, callOptions);
}

export function tcRateLimit(vmid, rateInKbps, rateOutKbps, reset, callOptions) {
  return invoke("tc-rate-limit", { vmid, rate_in_kbps: rateInKbps, rate_out_kbps: rateOutKbps, reset }, callOptions);
}

export function virtCustomize(imagePath, commands, callOptions) {
  return invoke("virt-customize", { image_path: imagePath, commands }, callOptions);
}

export function ip6RouteAdd(address, dev, callOptions) {
  return invoke("ip6-route-add", { address, dev }, callOptions);
}

export function ip6RouteDel(address, dev, callOptions) {
  return invoke("ip6-route-del", { address, dev }, callOptions);
}

export function routeSet(dest, dev, via, src, metric, callOptions) {
  return invoke("route-set", { dest, dev, via, src, metric }, callOptions);
}

export function routeDel(dest, dev, metric, callOptions) {
  return invoke("route-del", { dest, dev, metric }, callOptions);
}

export function routeFromSet(from, dev, callOptions) {
  return invoke("route-from-set", { from, dev }, callOptions);
}

export function routeFromDel(from, dev, callOptions) {
  return invoke("route-from-del", { from, dev }, callOptions);
}

export function iptablesOpen(port, proto, comment, source, callOptions) {
  return invoke("iptables-open", { port, proto, comment, source }, callOptions);
}

export function iptablesClose(port, proto, comment, source, callOptions) {
  return invoke("iptables-close", { port, proto, comment, source }, callOptions);
}

export function iptablesList(callOptions) {
  return invoke("iptables-list", {}, callOptions);
}

export function iptablesSet(rules, callOptions) {
  return invoke("iptables-set", { rules }, callOptions);
}

export function natMap(public_, private_, comment, callOptions) {
  return invoke("nat-map", { public: public_, private: private_, comment }, callOptions);
}

export function natUnmap(public_, private_, comment, callOptions) {
  return invoke("nat-unmap", { public: public_, private: private_, comment }, callOptions);
}

export function natList(callOptions) {
  return invoke("nat-list", {}, callOptions);
}

export function natSet(pairs, callOptions) {
  return invoke("nat-set", { pairs }, callOptions);
}

export function proxySet(address, dev, behind, callOptions) {
  return invoke("proxy-set", { address, dev, behind }, callOptions);
}

export function proxyDel(address, dev, callOptions) {
  return invoke("proxy-del", { address, dev }, callOptions);
}

export function masqueradeSet(dev, networks, callOptions) {
  return invoke("masquerade-set", { dev, networks }, callOptions);
}

export function masqueradeList(callOptions) {
  return invoke("masquerade-list", {}, callOptions);
}

export function sysctlSet(setting, on, dev, callOptions) {
  return invoke("sysctl-set", { setting, on, dev }, callOptions);
}

export function vethRename(vmid, index, callOptions) {
  return invoke("veth-rename", { vmid, index }, callOptions);
}

export function linkSet(dev, up, mtu, addresses, forward, callOptions) {
  return invoke("link-set", { dev, up, mtu, addresses, forward }, callOptions);
}

export function linkHandover(from, to, keep, callOptions) {
  return invoke("link-handover", { from, to, keep }, callOptions);
}

export function ovsAddBr(bridge, options, callOptions) {
  return invoke("ovs-add-br", { bridge, options }, callOptions);
}

export function ovsDelBr(bridge, callOptions) {
  return invoke("ovs-del-br", { bridge }, callOptions);
}

export function ovsAddPort(bridge, port, tag, trunks, vmid, kind, attachedMac, ifaceId, callOptions) {
  return invoke("ovs-add-port", { bridge, port, tag, trunks, vmid, kind, attached_mac: attachedMac, iface_id: ifaceId }, callOptions);
}

export function ovsDelPort(bridge, port, callOptions) {
  return invoke("ovs-del-port", { bridge, port }, callOptions);
}

export function ovsSetFlows(bridge, owner, flows, callOptions) {
  return invoke("ovs-set-flows", { bridge, owner, flows }, callOptions);
}

export function ovsSetQos(bridge, port, maxKbps, queues, ingressKbps, ingressBurstKbit, callOptions) {
  return invoke("ovs-set-qos", { bridge, port, max_kbps: maxKbps, queues, ingress_kbps: ingressKbps, ingress_burst_kbit: ingressBurstKbit }, callOptions);
}

export function ovsSetMeter(bridge, meter, unit, rate, burst, callOptions) {
  return invoke("ovs-set-meter", { bridge, meter, unit, rate, burst }, callOptions);
}

export function ovsList(bridge, flows, owner, callOptions) {
  return invoke("ovs-list", { bridge, flows, owner }, callOptions);
}

export function containerLook(pid, callOptions) {
  return invoke("container-look", { pid }, callOptions);
}

export function containerAttach(container, pid, netns, port, interface_, addresses, mac, mtu, gateway4, gateway6, callOptions) {
  return invoke("container-attach", { container, pid, netns, port, interface: interface_, addresses, mac, mtu, gateway4, gateway6 }, callOptions);
}

export function containerDetach(container, port, callOptions) {
  return invoke("container-detach", { container, port }, callOptions);
}

export function wgSetup(name, addresses, listenPort, mtu, callOptions) {
  return invoke("wg-setup", { name, addresses, listen_port: listenPort, mtu }, callOptions);
}

export function wgSetPeers(name, peers, callOptions) {
  return invoke("wg-set-peers", { name, peers }, callOptions);
}

export function wgTeardown(name, callOptions) {
  return invoke("wg-teardown", { name }, callOptions);
}

export function wgShow(name, callOptions) {
  return invoke("wg-show", { name }, callOptions);
}

export function generateWallet(name, callOptions) {
  return invoke("generate-wallet", { name }, callOptions);
}

export function addressbookSave(entries, callOptions) {
  return invoke("addressbook-save", { entries }, callOptions);
}

export function brokerRenew(prefix, gateway, brokerPubkey, brokerEndpoint, leaseUntil, replace, callOptions) {
  return invoke("broker-renew", { prefix, gateway, broker_pubkey: brokerPubkey, broker_endpoint: brokerEndpoint, lease_until: leaseUntil, replace }, callOptions);
}

export function ledgerAppend(category, action, data, resource, callOptions) {
  return invoke("ledger-append", { category, action, data, resource }, callOptions);
}

export function ledgerAnchored(chainId, contract, tx, block, size, root, headSize, proof, callOptions) {
  return invoke("ledger-anchored", { chain_id: chainId, contract, tx, block, size, root, head_size: headSize, proof }, callOptions);
}

export function ledgerBlob(category, action, ciphertext, data, resource, callOptions) {
  return invoke("ledger-blob", { category, action, ciphertext, data, resource }, callOptions);
}

export function ledgerShred(sha256, reason, callOptions) {
  return invoke("ledger-shred", { sha256, reason }, callOptions);
}

export function ledgerPrune(before, reason, callOptions) {
  return invoke("ledger-prune", { before, reason }, callOptions);
}

export function ledgerCosign(checkpoint, callOptions) {
  return invoke("ledger-cosign", { checkpoint }, callOptions);
}

export function ledgerRotateKey(callOptions) {
  return invoke("ledger-rotate-key", {}, callOptions);
}

export function agentInfo(callOptions) {
  return invoke("agent-info", {}, callOptions);
}
