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

export function qmGuestPing(vmid, callOptions) {
  return invoke("qm-guest-ping", { vmid }, callOptions);
}

export function qmGuestExec(vmid, command, timeout, secret, callOptions) {
  return invoke("qm-guest-exec", { vmid, command, timeout, secret }, callOptions);
}

export function ip6RouteAdd(address, dev, callOptions) {
  return invoke("ip6-route-add", { address, dev }, callOptions);
}

export function ip6RouteDel(address, dev, callOptions) {
  return invoke("ip6-route-del", { address, dev }, callOptions);
}

export function iptablesOpen(port, proto, comment, source, callOptions) {
  return invoke("iptables-open", { port, proto, comment, source }, callOptions);
}

export function iptablesClose(port, proto, comment, source, callOptions) {
  return invoke("iptables-close", { port, proto, comment, source }, callOptions);
}

export function generateWallet(name, callOptions) {
  return invoke("generate-wallet", { name }, callOptions);
}

export function addressbookSave(entries, callOptions) {
  return invoke("addressbook-save", { entries }, callOptions);
}

export function ledgerAppend(category, action, data, resource, callOptions) {
  return invoke("ledger-append", { category, action, data, resource }, callOptions);
}

export function agentInfo(callOptions) {
  return invoke("agent-info", {}, callOptions);
}
