# Generated from the catalog by `make clients`; do not edit.
"""One method per action of the catalog. The client they are methods of brings the connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Dict, Literal, Optional, Union

from . import _types as t


class Actions:
    """The actions of the root agent.

    ``call_timeout`` is how long to wait for the answer, in seconds; without it what the action may take. With
    ``dry_run`` the agent checks and authorises, and says what it would do; fields of the action are then missing.
    """

    def _invoke(
        self, action: str, params: Dict[str, Any], call_timeout: Optional[float], dry_run: bool
    ) -> Any:
        raise NotImplementedError

    def qm_start(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Starts a machine; one that runs already is a success.

        :param vmid: Number of the machine.
        """
        reply: t.Reply = self._invoke(
            "qm-start", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def qm_stop(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Stops a machine at once, as if its power were cut; one that is stopped already is a success.

        :param vmid: Number of the machine.
        """
        reply: t.Reply = self._invoke(
            "qm-stop", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def qm_template(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Turns a stopped machine into a template.

        :param vmid: Number of the machine.
        """
        reply: t.Reply = self._invoke(
            "qm-template", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def qm_shutdown(
        self,
        vmid: int,
        *,
        timeout: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Asks the guest to shut down and waits; never forces it. Answers `timeout` when the guest ignores it.

        :param vmid: Number of the machine.
        :param timeout: How long to wait, in seconds. Without it `120`.
        """
        reply: t.Reply = self._invoke(
            "qm-shutdown", {"vmid": vmid, "timeout": timeout}, call_timeout, dry_run
        )
        return reply

    def qm_destroy(
        self,
        vmid: int,
        *,
        template: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Destroys a stopped machine with its disks. Refuses templates unless asked for one.

        :param vmid: Number of the machine.
        :param template: Say true to destroy a template. Without it `false`.
        """
        reply: t.Reply = self._invoke(
            "qm-destroy", {"vmid": vmid, "template": template}, call_timeout, dry_run
        )
        return reply

    def qm_create(
        self,
        vmid: int,
        name: str,
        args: Union[Sequence[Sequence[Union[str, int]]], Sequence[Union[str, int]]],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Creates a machine.

        :param vmid: Number of the new machine.
        :param name: Its name.
        :param args: Its options, as a flat list `["--memory", "2048", ...]` or as pairs `[["--memory", "2048"],
        ...]`.
        """
        reply: t.Reply = self._invoke(
            "qm-create", {"vmid": vmid, "name": name, "args": args}, call_timeout, dry_run
        )
        return reply

    def qm_set(
        self,
        vmid: int,
        options: Mapping[str, Union[str, int]],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Changes options of a machine.

        :param vmid: Number of the machine.
        :param options: Options and their new values.
        """
        reply: t.Reply = self._invoke(
            "qm-set", {"vmid": vmid, "options": options}, call_timeout, dry_run
        )
        return reply

    def qm_importdisk(
        self,
        vmid: int,
        disk_path: str,
        storage: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.QmImportdiskReply:
        """Imports a disk image as an unused disk of a machine.

        :param vmid: Number of the machine.
        :param disk_path: The image: a path below an allowed image directory.
        :param storage: Storage to import to.
        """
        reply: t.QmImportdiskReply = self._invoke(
            "qm-importdisk", {"vmid": vmid, "disk_path": disk_path, "storage": storage}, call_timeout, dry_run
        )
        return reply

    def qm_clone(
        self,
        vmid: int,
        newid: int,
        name: str,
        *,
        full: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Clones a machine or template.

        :param vmid: Number of the machine to clone.
        :param newid: Number of the new machine.
        :param name: Name of the new machine.
        :param full: Copy the disks instead of linking to them. Without it `false`.
        """
        reply: t.Reply = self._invoke(
            "qm-clone", {"vmid": vmid, "newid": newid, "name": name, "full": full}, call_timeout, dry_run
        )
        return reply

    def qm_resize(
        self,
        vmid: int,
        disk: str,
        size: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Grows a disk; never shrinks one.

        :param vmid: Number of the machine.
        :param disk: The drive, such as `scsi0`.
        :param size: New size (`20G`) or growth (`+10G`).
        """
        reply: t.Reply = self._invoke(
            "qm-resize", {"vmid": vmid, "disk": disk, "size": size}, call_timeout, dry_run
        )
        return reply

    def qm_status(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """State of a machine, as JSON in `output`.
        Changes nothing.

        :param vmid: Number of the machine.
        """
        reply: t.Reply = self._invoke(
            "qm-status", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def qm_config(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Configuration of a machine, as JSON in `output`.
        Changes nothing.

        :param vmid: Number of the machine.
        """
        reply: t.Reply = self._invoke(
            "qm-config", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def qm_list(
        self,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """All machines, as a JSON array in `output`.
        Changes nothing.
        """
        reply: t.Reply = self._invoke(
            "qm-list", {}, call_timeout, dry_run
        )
        return reply

    def qm_metrics(
        self,
        *,
        vmid: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """What machines but templates have used so far, as a JSON array of counters in `output`.
        Changes nothing.

        :param vmid: Only this machine.
        """
        reply: t.Reply = self._invoke(
            "qm-metrics", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def qm_guest_ping(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Asks the guest agent whether it answers.
        Changes nothing.

        :param vmid: Number of the machine.
        """
        reply: t.Reply = self._invoke(
            "qm-guest-ping", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def qm_guest_exec(
        self,
        vmid: int,
        command: str,
        *,
        timeout: Optional[int] = None,
        secret: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.QmGuestExecReply:
        """Runs a command inside the guest, through its agent and its `/bin/sh -c`. Answers `exitcode`, `stdout`,
        `stderr`.

        :param vmid: Number of the machine.
        :param command: The command line.
        :param timeout: How long it may take, in seconds. Without it `60`.
        :param secret: The command holds a secret: log and ledger keep a salted digest of it. Without it
        `false`.
        """
        reply: t.QmGuestExecReply = self._invoke(
            "qm-guest-exec", {"vmid": vmid, "command": command, "timeout": timeout, "secret": secret}, call_timeout, dry_run
        )
        return reply

    def pct_create(
        self,
        vmid: int,
        template: str,
        hostname: str,
        options: Mapping[str, Union[str, int]],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Creates an unprivileged container. Its root file system is a new volume, so `rootfs` must be among the
        options.

        :param vmid: Number of the new container.
        :param template: What its root file system is unpacked from: an archive of an allowed storage, or a file
        below an allowed directory.
        :param hostname: Its host name.
        :param options: Its options and their values.
        """
        reply: t.Reply = self._invoke(
            "pct-create", {"vmid": vmid, "template": template, "hostname": hostname, "options": options}, call_timeout, dry_run
        )
        return reply

    def pct_start(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Starts a container; one that runs already is a success.

        :param vmid: Number of the container.
        """
        reply: t.Reply = self._invoke(
            "pct-start", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def pct_stop(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Stops a container at once; one that is stopped already is a success.

        :param vmid: Number of the container.
        """
        reply: t.Reply = self._invoke(
            "pct-stop", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def pct_shutdown(
        self,
        vmid: int,
        *,
        timeout: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Asks the container to shut down and waits; never forces it. Answers `timeout` when it ignores that.

        :param vmid: Number of the container.
        :param timeout: How long to wait, in seconds. Without it `120`.
        """
        reply: t.Reply = self._invoke(
            "pct-shutdown", {"vmid": vmid, "timeout": timeout}, call_timeout, dry_run
        )
        return reply

    def pct_destroy(
        self,
        vmid: int,
        *,
        template: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Destroys a stopped container with its root file system. Refuses templates unless asked for one.

        :param vmid: Number of the container.
        :param template: Say true to destroy a template. Without it `false`.
        """
        reply: t.Reply = self._invoke(
            "pct-destroy", {"vmid": vmid, "template": template}, call_timeout, dry_run
        )
        return reply

    def pct_status(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """State of a container, as JSON in `output`.
        Changes nothing.

        :param vmid: Number of the container.
        """
        reply: t.Reply = self._invoke(
            "pct-status", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def pct_config(
        self,
        vmid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Configuration of a container, as JSON in `output`.
        Changes nothing.

        :param vmid: Number of the container.
        """
        reply: t.Reply = self._invoke(
            "pct-config", {"vmid": vmid}, call_timeout, dry_run
        )
        return reply

    def pct_list(
        self,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """All containers, as a JSON array in `output`.
        Changes nothing.
        """
        reply: t.Reply = self._invoke(
            "pct-list", {}, call_timeout, dry_run
        )
        return reply

    def pct_set(
        self,
        vmid: int,
        options: Mapping[str, Union[str, int]],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Changes options of a container. What belongs to its creation (`rootfs`, `ssh-public-keys`,
        `unprivileged`) stays.

        :param vmid: Number of the container.
        :param options: Options and their new values.
        """
        reply: t.Reply = self._invoke(
            "pct-set", {"vmid": vmid, "options": options}, call_timeout, dry_run
        )
        return reply

    def pct_exec(
        self,
        vmid: int,
        command: str,
        *,
        timeout: Optional[int] = None,
        secret: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.PctExecReply:
        """Runs a command inside a running container, through its `/bin/sh -c`. Answers `exitcode`, `stdout`,
        `stderr`.

        :param vmid: Number of the container.
        :param command: The command line.
        :param timeout: How long it may take, in seconds. Without it `60`.
        :param secret: The command holds a secret: log and ledger keep a salted digest of it. Without it
        `false`.
        """
        reply: t.PctExecReply = self._invoke(
            "pct-exec", {"vmid": vmid, "command": command, "timeout": timeout, "secret": secret}, call_timeout, dry_run
        )
        return reply

    def vm_throttle(
        self,
        vmid: int,
        *,
        cpuunits: Optional[int] = None,
        cpulimit: Optional[Union[str, int]] = None,
        iops_rd: Optional[int] = None,
        iops_wr: Optional[int] = None,
        rate_in_kbps: Optional[int] = None,
        rate_out_kbps: Optional[int] = None,
        reset: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Limits processor, disks and network of a machine. Limits that are not named stay; with `reset` they are
        removed first. Those on processor and disks are kept with its options; those on the network last while
        it runs.

        :param vmid: Number of the machine.
        :param cpuunits: Weight among the machines when the processor is short.
        :param cpulimit: Cores that it may use at most; 0 for no limit.
        :param iops_rd: Reads per second, of each disk.
        :param iops_wr: Writes per second, of each disk.
        :param rate_in_kbps: What it may receive, in kilobits (1000 bits) per second, on each interface.
        :param rate_out_kbps: What it may send, in kilobits (1000 bits) per second, on each interface.
        :param reset: Remove all limits before setting those that are given. Without it `false`.
        """
        reply: t.Reply = self._invoke(
            "vm-throttle", {"vmid": vmid, "cpuunits": cpuunits, "cpulimit": cpulimit, "iops_rd": iops_rd, "iops_wr": iops_wr, "rate_in_kbps": rate_in_kbps, "rate_out_kbps": rate_out_kbps, "reset": reset}, call_timeout, dry_run
        )
        return reply

    def pve_set_throttle(
        self,
        vmid: int,
        *,
        cpuunits: Optional[int] = None,
        cpulimit: Optional[Union[str, int]] = None,
        iops_rd: Optional[int] = None,
        iops_wr: Optional[int] = None,
        reset: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Limits processor and disks of a machine: `vm-throttle` without the network.

        :param vmid: Number of the machine.
        :param cpuunits: Weight among the machines when the processor is short.
        :param cpulimit: Cores that it may use at most; 0 for no limit.
        :param iops_rd: Reads per second, of each disk.
        :param iops_wr: Writes per second, of each disk.
        :param reset: Remove these limits before setting those that are given. Without it `false`.
        """
        reply: t.Reply = self._invoke(
            "pve-set-throttle", {"vmid": vmid, "cpuunits": cpuunits, "cpulimit": cpulimit, "iops_rd": iops_rd, "iops_wr": iops_wr, "reset": reset}, call_timeout, dry_run
        )
        return reply

    def tc_rate_limit(
        self,
        vmid: int,
        *,
        rate_in_kbps: Optional[int] = None,
        rate_out_kbps: Optional[int] = None,
        reset: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Limits the network of a machine: `vm-throttle` without processor and disks. Its limits last while the
        machine runs.

        :param vmid: Number of the machine.
        :param rate_in_kbps: What it may receive, in kilobits (1000 bits) per second, on each interface.
        :param rate_out_kbps: What it may send, in kilobits (1000 bits) per second, on each interface.
        :param reset: Remove these limits before setting those that are given. Without it `false`.
        """
        reply: t.Reply = self._invoke(
            "tc-rate-limit", {"vmid": vmid, "rate_in_kbps": rate_in_kbps, "rate_out_kbps": rate_out_kbps, "reset": reset}, call_timeout, dry_run
        )
        return reply

    def virt_customize(
        self,
        image_path: str,
        commands: Sequence[Sequence[str]],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.VirtCustomizeReply:
        """Changes the inside of a disk image, operation by operation, in the order given. The image is replaced
        only when all of them have succeeded.

        :param image_path: The image: a path below an allowed image directory.
        :param commands: The operations, each as a list of its name (with or without `--`) and its one argument,
        written as the tool of that name takes it: `["install", "nginx,curl"]`, `["write", "/etc/motd:hello"]`,
        `["copy-in", "site:/var/www"]`.
        """
        reply: t.VirtCustomizeReply = self._invoke(
            "virt-customize", {"image_path": image_path, "commands": commands}, call_timeout, dry_run
        )
        return reply

    def ip6_route_add(
        self,
        address: str,
        dev: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Sets the route to one address, replacing another; the same again is a success.

        :param address: The address, with `/128`.
        :param dev: The device that leads to it.
        """
        reply: t.Reply = self._invoke(
            "ip6-route-add", {"address": address, "dev": dev}, call_timeout, dry_run
        )
        return reply

    def ip6_route_del(
        self,
        address: str,
        dev: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Deletes the route to one address; `not_found` where there is none.

        :param address: The address, with `/128`.
        :param dev: The device that leads to it.
        """
        reply: t.Reply = self._invoke(
            "ip6-route-del", {"address": address, "dev": dev}, call_timeout, dry_run
        )
        return reply

    def route_set(
        self,
        dest: str,
        dev: str,
        *,
        via: Optional[str] = None,
        src: Optional[str] = None,
        metric: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Sets the route to a network in the main table, such as that of containers behind a tunnel: another route
        of this agent to the same network with the same metric is replaced in one step, the same again changes
        nothing. A route that somebody else made is a `conflict` and stays.

        :param dest: The network.
        :param dev: The device that leads to it.
        :param via: The router on that device; none where the network is at the device itself.
        :param src: The host's address that is used for what it sends there.
        :param metric: Of several routes to the network the one with the lowest is taken. Without it `1024`.
        """
        reply: t.Reply = self._invoke(
            "route-set", {"dest": dest, "dev": dev, "via": via, "src": src, "metric": metric}, call_timeout, dry_run
        )
        return reply

    def route_del(
        self,
        dest: str,
        dev: str,
        *,
        metric: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Deletes a route that `route-set` made; `not_found` where there is none.

        :param dest: The network.
        :param dev: The device that leads to it.
        :param metric: The metric that the route was set with. Without it `1024`.
        """
        reply: t.Reply = self._invoke(
            "route-del", {"dest": dest, "dev": dev, "metric": metric}, call_timeout, dry_run
        )
        return reply

    def route_from_set(
        self,
        from_: str,
        dev: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Sends out of a tunnel of this agent what comes from a network of machines and has no route of its own: a
        default route in the main table for packets with a source of that network, and for no others. What the
        host sends from another address goes as before. Another such route of this agent is replaced, the same
        again changes nothing; one that somebody else made, or a network that is at a device of somebody else's,
        is a `conflict`.

        :param from_: The network that the packets come from.
        :param dev: The tunnel that leads out.
        """
        reply: t.Reply = self._invoke(
            "route-from-set", {"from": from_, "dev": dev}, call_timeout, dry_run
        )
        return reply

    def route_from_del(
        self,
        from_: str,
        dev: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Deletes a route that `route-from-set` made; `not_found` where there is none.

        :param from_: The network that the packets come from.
        :param dev: The tunnel that the route goes out of.
        """
        reply: t.Reply = self._invoke(
            "route-from-del", {"from": from_, "dev": dev}, call_timeout, dry_run
        )
        return reply

    def iptables_open(
        self,
        port: int,
        *,
        proto: Optional[Literal["tcp", "udp"]] = None,
        comment: str,
        source: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Accepts packets to a port; the same again adds nothing.

        :param port: The port.
        :param proto: Transport protocol. Without it `"tcp"`.
        :param comment: Marks the rule as its owner's.
        :param source: Only packets from there; both families where it is missing.
        """
        reply: t.Reply = self._invoke(
            "iptables-open", {"port": port, "proto": proto, "comment": comment, "source": source}, call_timeout, dry_run
        )
        return reply

    def iptables_close(
        self,
        port: int,
        *,
        proto: Optional[Literal["tcp", "udp"]] = None,
        comment: str,
        source: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Removes exactly the rule that the same parameters opened; `not_found` where there is none.

        :param port: The port.
        :param proto: Transport protocol. Without it `"tcp"`.
        :param comment: The comment that the rule was opened with.
        :param source: The source that the rule was opened with.
        """
        reply: t.Reply = self._invoke(
            "iptables-close", {"port": port, "proto": proto, "comment": comment, "source": source}, call_timeout, dry_run
        )
        return reply

    def iptables_list(
        self,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.IptablesListReply:
        """The ports that are open now, as a JSON array in `output`, from the rules themselves: `port`, `proto`,
        `comment`, `source` where there is one, and under `families` the families that the rule stands in,
        `IPv4` and `IPv6`. Rules in our chain that nobody here made are not shown.
        Changes nothing.
        """
        reply: t.IptablesListReply = self._invoke(
            "iptables-list", {}, call_timeout, dry_run
        )
        return reply

    def iptables_set(
        self,
        rules: Sequence[t.IptablesSetRule],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Opens these ports and no others: whatever else stands in our chain goes, also what nobody here made. All
        of it in one step for each family; other chains and tables are left alone, and the same again changes
        nothing.

        :param rules: All ports that are open from now on.
        """
        reply: t.Reply = self._invoke(
            "iptables-set", {"rules": rules}, call_timeout, dry_run
        )
        return reply

    def nat_map(
        self,
        public: str,
        private: str,
        comment: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Sends what comes for the public address to the private one, and lets the private one appear as the
        public one.

        :param public: The public address, of a pool of this host.
        :param private: The private address behind it, of the same family.
        :param comment: Marks the pair as its owner's.
        """
        reply: t.Reply = self._invoke(
            "nat-map", {"public": public, "private": private, "comment": comment}, call_timeout, dry_run
        )
        return reply

    def nat_unmap(
        self,
        public: str,
        private: str,
        comment: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Removes exactly the pair that the same parameters made, and forgets the connections that used it;
        `not_found` where there is none.

        :param public: The public address.
        :param private: The private address behind it.
        :param comment: The comment that the pair was made with.
        """
        reply: t.Reply = self._invoke(
            "nat-unmap", {"public": public, "private": private, "comment": comment}, call_timeout, dry_run
        )
        return reply

    def nat_list(
        self,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.NatListReply:
        """The pairs that stand now, as a JSON array in `output`, from the rules themselves: `public`, `private`,
        `comment`, and `whole`, which is false where one of the two directions is missing. Rules of ours that
        nobody here made are not shown.
        Changes nothing.
        """
        reply: t.NatListReply = self._invoke(
            "nat-list", {}, call_timeout, dry_run
        )
        return reply

    def nat_set(
        self,
        pairs: Sequence[t.NatSetPair],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Maps these pairs and no others: whatever else stands in our chains goes, also what nobody here made, and
        the connections of pairs that are gone are forgotten. All of it in one step for each family; the same
        again changes nothing.

        :param pairs: All pairs that stand from now on.
        """
        reply: t.Reply = self._invoke(
            "nat-set", {"pairs": pairs}, call_timeout, dry_run
        )
        return reply

    def proxy_set(
        self,
        address: str,
        dev: str,
        behind: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Answers ARP requests or neighbour solicitations for a public address on the uplink, and sets the route
        to it, so that what comes for it comes here and goes on, with `nat-map` to a private address. IPv4
        packets that come in by the uplink are forwarded from then on; for IPv6 the host has to forward and to
        have `proxy_ndp` on, which Linux lets no netlink request do. What somebody else set is a `conflict` and
        stays.

        :param address: The public address, of a pool of this host.
        :param dev: The device where others ask for it: an uplink of the policy.
        :param behind: The device that leads to who has it, another one.
        """
        reply: t.Reply = self._invoke(
            "proxy-set", {"address": address, "dev": dev, "behind": behind}, call_timeout, dry_run
        )
        return reply

    def proxy_del(
        self,
        address: str,
        dev: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Answers for the address no more and takes its route away; `not_found` where `proxy-set` did not set it
        on this device.

        :param address: The public address.
        :param dev: The device where it is answered for.
        """
        reply: t.Reply = self._invoke(
            "proxy-del", {"address": address, "dev": dev}, call_timeout, dry_run
        )
        return reply

    def masquerade_set(
        self,
        dev: str,
        networks: Sequence[str],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Lets packets from these networks, and from no others, leave by a tunnel with the host's own address
        there as their source: for others in the mesh that know no way back to the networks. What was set for
        the tunnel before is replaced, in one step for each family; an empty list ends it. Connections that are
        under way keep what they have. It comes before public addresses of `nat-map`, which are none that a peer
        would take.

        :param dev: The tunnel, one of this agent.
        :param networks: All networks whose packets get the host's address there from now on.
        """
        reply: t.Reply = self._invoke(
            "masquerade-set", {"dev": dev, "networks": networks}, call_timeout, dry_run
        )
        return reply

    def masquerade_list(
        self,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """What `masquerade-set` set, as a JSON array in `output`, from the rules themselves: `dev`, `network`, and
        `whole`, which is false where the rule is there and not in effect.
        Changes nothing.
        """
        reply: t.Reply = self._invoke(
            "masquerade-list", {}, call_timeout, dry_run
        )
        return reply

    def sysctl_set(
        self,
        setting: Literal["ipv4-forwarding", "ipv6-forwarding", "ipv6-proxy"],
        on: bool,
        *,
        dev: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.SysctlSetReply:
        """Switches one setting of the host's network, of those that the policy lists. `ipv4-forwarding` and
        `ipv6-proxy` are of an uplink, `ipv6-forwarding` of the whole host. Where the kernel takes the host's
        own way out from routers' advertisements, it would forget it with `ipv6-forwarding`: uplinks are told
        before to keep it, and where such a way leads out of another device the request is refused. The same
        again changes nothing; the opposite takes it back. None of it outlives a start of the machine.

        :param setting: Which.
        :param on: Whether it is on from now on.
        :param dev: The device that it is of: an uplink of the policy; none for `ipv6-forwarding`.
        """
        reply: t.SysctlSetReply = self._invoke(
            "sysctl-set", {"setting": setting, "on": on, "dev": dev}, call_timeout, dry_run
        )
        return reply

    def veth_rename(
        self,
        vmid: int,
        *,
        index: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.VethRenameReply:
        """Gives the host's end of a container's interface, `veth<vmid>i<index>`, the alternative name `vi<vmid>`,
        or `vi<vmid>_<index>` for all but the first. Its own name stays: the container manager depends on it.

        :param vmid: The container.
        :param index: Which of its interfaces: 0 is `net0`.
        """
        reply: t.VethRenameReply = self._invoke(
            "veth-rename", {"vmid": vmid, "index": index}, call_timeout, dry_run
        )
        return reply

    def link_set(
        self,
        dev: str,
        *,
        up: Optional[bool] = None,
        mtu: Optional[int] = None,
        addresses: Optional[Sequence[str]] = None,
        forward: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.LinkSetReply:
        """Brings a device of this host to this state: bridges, switches' own devices, tunnels and the host's ends
        of machines' interfaces, as the policy lists them. What is not given stays as it is, and only the
        difference is applied; what fails half-way is taken back. A machine's interface is also found by the
        name that `veth-rename` gave it.

        :param dev: The device.
        :param up: Whether it is up.
        :param mtu: Its MTU in bytes.
        :param addresses: All its addresses from now on, but for those that the kernel makes and those of the
        link alone.
        :param forward: Whether IPv4 packets that come in by it are forwarded; where they are, one whose way
        back leads out of another device is dropped. IPv6 has no such setting of one device.
        """
        reply: t.LinkSetReply = self._invoke(
            "link-set", {"dev": dev, "up": up, "mtu": mtu, "addresses": addresses, "forward": forward}, call_timeout, dry_run
        )
        return reply

    def link_handover(
        self,
        from_: str,
        to: str,
        *,
        keep: Optional[Sequence[str]] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.LinkHandoverReply:
        """Moves all addresses and routes of a device to another: from an uplink to the bridge that it became a
        port of, which takes over its hardware address, and back to the uplink, which keeps its own. Each is
        given to the one before it is taken from the other; what fails is undone, and after an interruption the
        same request goes on where it ended. Addresses of the link alone stay. To give a bridge's addresses
        back, `keep` has those that it had before, and the uplink stays its port until that is done: a switch in
        user space takes its device down when its ports change, and with that go routes.

        :param from_: The device that has them: an uplink or a bridge of the policy.
        :param to: The device that gets them, likewise.
        :param keep: Addresses that stay, with the routes into their networks.
        """
        reply: t.LinkHandoverReply = self._invoke(
            "link-handover", {"from": from_, "to": to, "keep": keep}, call_timeout, dry_run
        )
        return reply

    def ovs_add_br(
        self,
        bridge: str,
        *,
        options: Optional[t.OvsAddBrOptions] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Makes a bridge and waits until the switch has it; one that this agent made already is a success, and is
        changed to these options. Its flows and meters stay when `fail_mode` changes, with which the switch
        alone would drop them. Where they may be lost (the switch stands still, the agent is killed) it fails
        and says so; asked for again it succeeds with `flows_lost`, which `ovs-list` says as well, until the
        flows are there again.

        :param bridge: The bridge.
        :param options: How it is made. Without it `{}`.
        """
        reply: t.Reply = self._invoke(
            "ovs-add-br", {"bridge": bridge, "options": options}, call_timeout, dry_run
        )
        return reply

    def ovs_del_br(
        self,
        bridge: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Deletes a bridge that this agent made, with its ports and flows; `not_found` where there is none,
        `conflict` where the host has its own addresses or way out on a device of it.

        :param bridge: The bridge.
        """
        reply: t.Reply = self._invoke(
            "ovs-del-br", {"bridge": bridge}, call_timeout, dry_run
        )
        return reply

    def ovs_add_port(
        self,
        bridge: str,
        port: str,
        *,
        tag: Optional[int] = None,
        trunks: Optional[Sequence[int]] = None,
        vmid: Optional[int] = None,
        kind: Optional[Literal["system", "internal"]] = None,
        attached_mac: Optional[str] = None,
        iface_id: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.OvsAddPortReply:
        """Attaches a port, waits until the switch has acted, and reports what the switch says about the device.

        :param bridge: The bridge.
        :param port: The device.
        :param tag: Its VLAN: packets come and go without the tag.
        :param trunks: VLANs that it carries tagged.
        :param vmid: The machine that it belongs to, kept beside the port.
        :param kind: `internal` makes the device, `system` takes an existing one. Without it `"system"`.
        :param attached_mac: Hardware address of the machine's end, kept beside the port.
        :param iface_id: Name of the interface inside the machine, kept beside the port.
        """
        reply: t.OvsAddPortReply = self._invoke(
            "ovs-add-port", {"bridge": bridge, "port": port, "tag": tag, "trunks": trunks, "vmid": vmid, "kind": kind, "attached_mac": attached_mac, "iface_id": iface_id}, call_timeout, dry_run
        )
        return reply

    def ovs_del_port(
        self,
        bridge: str,
        port: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Detaches a port that this agent attached; `not_found` where there is none, `conflict` for an internal
        one whose device has the host's own addresses or way out, and for one of `allow.uplinks` that the host's
        only way out leads over, unless another of them is on the same bridge and VLANs and has carrier.

        :param bridge: The bridge.
        :param port: The device.
        """
        reply: t.Reply = self._invoke(
            "ovs-del-port", {"bridge": bridge, "port": port}, call_timeout, dry_run
        )
        return reply

    def ovs_set_flows(
        self,
        bridge: str,
        owner: str,
        flows: Sequence[t.OvsSetFlowsFlow],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.OvsSetFlowsReply:
        """Replaces all flows of one owner on a bridge, all or nothing; an empty list removes them. Answers how
        many were added, changed and removed.

        :param bridge: The bridge.
        :param owner: Whose flows they are. Other owners' flows stay.
        :param flows: The flows, see "Flows" below.
        """
        reply: t.OvsSetFlowsReply = self._invoke(
            "ovs-set-flows", {"bridge": bridge, "owner": owner, "flows": flows}, call_timeout, dry_run
        )
        return reply

    def ovs_set_qos(
        self,
        bridge: str,
        port: str,
        *,
        max_kbps: Optional[int] = None,
        queues: Optional[Sequence[t.OvsSetQosQueue]] = None,
        ingress_kbps: Optional[int] = None,
        ingress_burst_kbit: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Sets a port's limit and queues, replacing those it had; without `max_kbps` and queues it removes them.

        :param bridge: The bridge.
        :param port: The port.
        :param max_kbps: What all of its traffic to the machine may use, in kbit/s.
        :param queues: Its queues, for `set_queue`. Without it `[]`.
        :param ingress_kbps: What the machine may send, in kbit/s; more is dropped.
        :param ingress_burst_kbit: Burst of `ingress_kbps`, in kbit.
        """
        reply: t.Reply = self._invoke(
            "ovs-set-qos", {"bridge": bridge, "port": port, "max_kbps": max_kbps, "queues": queues, "ingress_kbps": ingress_kbps, "ingress_burst_kbit": ingress_burst_kbit}, call_timeout, dry_run
        )
        return reply

    def ovs_set_meter(
        self,
        bridge: str,
        meter: int,
        *,
        unit: Optional[Literal["kbps", "pktps"]] = None,
        rate: Optional[int] = None,
        burst: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Sets a meter of a bridge; without `rate` it removes the meter.

        :param bridge: The bridge.
        :param meter: Its number, what the flow action `meter` names.
        :param unit: What it counts. Without it `"kbps"`.
        :param rate: What may pass per second; more is dropped.
        :param burst: What may pass at once, in kilobits or packets.
        """
        reply: t.Reply = self._invoke(
            "ovs-set-meter", {"bridge": bridge, "meter": meter, "unit": unit, "rate": rate, "burst": burst}, call_timeout, dry_run
        )
        return reply

    def ovs_list(
        self,
        *,
        bridge: Optional[str] = None,
        flows: Optional[bool] = None,
        owner: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Bridges, ports, flows and counters, as JSON in `output`.
        Changes nothing.

        :param bridge: Only this bridge.
        :param flows: With the flows and their counters. Without it `false`.
        :param owner: Only flows of this owner.
        """
        reply: t.Reply = self._invoke(
            "ovs-list", {"bridge": bridge, "flows": flows, "owner": owner}, call_timeout, dry_run
        )
        return reply

    def container_look(
        self,
        pid: int,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.ContainerLookReply:
        """Says which network namespace a process is in, by the number that `container-attach` wants to hear again.
        A process in the host's own network is `forbidden`. Ask the container manager for the process once
        before and once after: where both answers are the same, the number is that of the container.
        Changes nothing.

        :param pid: A process of the container.
        """
        reply: t.ContainerLookReply = self._invoke(
            "container-look", {"pid": pid}, call_timeout, dry_run
        )
        return reply

    def container_attach(
        self,
        container: str,
        pid: int,
        netns: int,
        port: str,
        interface: str,
        addresses: Sequence[str],
        *,
        mac: Optional[str] = None,
        mtu: Optional[int] = None,
        gateway4: Optional[str] = None,
        gateway6: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.ContainerAttachReply:
        """Makes a virtual wire with one end on the host and the other in the network namespace of a process, and
        gives the end inside its hardware address, MTU, addresses and default routes. The end inside is never on
        the host: the kernel makes it where it belongs. The same again changes what differs; what fails is taken
        back. A process that is in another namespace than the one named, or in the host's, is refused, and so is
        a name that is taken by somebody else.

        :param container: The manager's full id of the container, kept beside both ends.
        :param pid: A process of the container.
        :param netns: The network namespace that it has to be in, as `container-look` says it.
        :param port: Name of the end on the host.
        :param interface: Name of the end inside.
        :param addresses: All addresses of the end inside from now on.
        :param mac: Hardware address of the end inside; the kernel chooses one where none is given.
        :param mtu: MTU of both ends.
        :param gateway4: Router for everything else of IPv4, in a network of the addresses.
        :param gateway6: Router for everything else of IPv6, in a network of the addresses or one of the link.
        """
        reply: t.ContainerAttachReply = self._invoke(
            "container-attach", {"container": container, "pid": pid, "netns": netns, "port": port, "interface": interface, "addresses": addresses, "mac": mac, "mtu": mtu, "gateway4": gateway4, "gateway6": gateway6}, call_timeout, dry_run
        )
        return reply

    def container_detach(
        self,
        container: str,
        port: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Removes the wire that `container-attach` made for the container, with both ends; `not_found` where there
        is none. What another program or another container has by that name stays.

        :param container: The container.
        :param port: Name of the end on the host.
        """
        reply: t.Reply = self._invoke(
            "container-detach", {"container": container, "port": port}, call_timeout, dry_run
        )
        return reply

    def wg_setup(
        self,
        name: str,
        addresses: Sequence[str],
        *,
        listen_port: Optional[int] = None,
        mtu: Optional[int] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.WgSetupReply:
        """Makes a tunnel, or brings one of this agent's to these values; its private key is made the first time
        and kept. Answers `public_key` and `listen_port`.

        :param name: The tunnel's interface.
        :param addresses: The interface's addresses, with the length of their networks.
        :param listen_port: UDP port to listen on; one is chosen where it is missing.
        :param mtu: MTU inside the tunnel, 1420 where it is missing.
        """
        reply: t.WgSetupReply = self._invoke(
            "wg-setup", {"name": name, "addresses": addresses, "listen_port": listen_port, "mtu": mtu}, call_timeout, dry_run
        )
        return reply

    def wg_set_peers(
        self,
        name: str,
        peers: Sequence[t.WgSetPeersPeer],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.WgSetPeersReply:
        """Replaces the peers of a tunnel in one step; sessions of peers that stay are not disturbed. Answers
        `preshared_keys` for those it generated. With `kept` a peer gets the shared key that it had last;
        `not_found` where none is known.

        :param name: The tunnel's interface.
        :param peers: All its peers from now on.
        """
        reply: t.WgSetPeersReply = self._invoke(
            "wg-set-peers", {"name": name, "peers": peers}, call_timeout, dry_run
        )
        return reply

    def wg_teardown(
        self,
        name: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Removes a tunnel of this agent with its keys; `not_found` where there is none.

        :param name: The tunnel's interface.
        """
        reply: t.Reply = self._invoke(
            "wg-teardown", {"name": name}, call_timeout, dry_run
        )
        return reply

    def wg_show(
        self,
        name: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """A tunnel as JSON in `output`: public key, port, addresses, and per peer endpoint, networks, last
        handshake and bytes. No secret key.
        Changes nothing.

        :param name: The tunnel's interface.
        """
        reply: t.Reply = self._invoke(
            "wg-show", {"name": name}, call_timeout, dry_run
        )
        return reply

    def generate_wallet(
        self,
        name: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.GenerateWalletReply:
        """Makes a secp256k1 key in `/etc/blockhost/<name>.key` and an address-book entry. Never overwrites a key.
        Answers `address` and `keyfile`.

        :param name: Name of the wallet; `admin`, `server`, `dev` and `broker` are refused.
        """
        reply: t.GenerateWalletReply = self._invoke(
            "generate-wallet", {"name": name}, call_timeout, dry_run
        )
        return reply

    def addressbook_save(
        self,
        entries: Mapping[str, t.AddressbookSaveEntry],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Replaces the address book atomically. Existing entries `admin`, `server`, `dev` and `broker` change or
        vanish only when uid 0 asks.

        :param entries: Name -> `{"address": "0x...", "keyfile": "name.key"}`; `keyfile` may be missing.
        """
        reply: t.Reply = self._invoke(
            "addressbook-save", {"entries": entries}, call_timeout, dry_run
        )
        return reply

    def broker_renew(
        self,
        prefix: str,
        *,
        gateway: Optional[str] = None,
        broker_pubkey: Optional[str] = None,
        broker_endpoint: Optional[str] = None,
        lease_until: Optional[int] = None,
        replace: Optional[bool] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.BrokerRenewReply:
        """Keeps what a broker gave this host in `/etc/blockhost/broker-allocation.json`, replaced atomically. What
        other programs wrote there stays; a parameter that is left out stays too, as long as the prefix does.
        Another prefix than the present one is a `conflict` unless `replace` is true: machines may have
        addresses of the present one.

        :param prefix: The network that machines draw their addresses from.
        :param gateway: Their router: an address of the network, or a link-local one. The first of the network
        where there is none.
        :param broker_pubkey: The public key of the broker's end of the tunnel.
        :param broker_endpoint: Where the broker's end of the tunnel listens.
        :param lease_until: When the allocation ends, in seconds since 1970; without end where it is missing.
        :param replace: Also where the host has another prefix now. Without it `false`.
        """
        reply: t.BrokerRenewReply = self._invoke(
            "broker-renew", {"prefix": prefix, "gateway": gateway, "broker_pubkey": broker_pubkey, "broker_endpoint": broker_endpoint, "lease_until": lease_until, "replace": replace}, call_timeout, dry_run
        )
        return reply

    def ledger_append(
        self,
        category: str,
        action: str,
        data: Mapping[str, Any],
        *,
        resource: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Records an event in the caller's name. The agent stamps who it was; such a record cannot pass for one of
        its own.

        :param category: Category of the event, such as `chain` or `network`.
        :param action: What happened, such as `subscription-created`; never the name of an action of this
        catalog.
        :param data: The details.
        :param resource: What it happened to.
        """
        reply: t.Reply = self._invoke(
            "ledger-append", {"category": category, "action": action, "data": data, "resource": resource}, call_timeout, dry_run
        )
        return reply

    def ledger_anchored(
        self,
        chain_id: int,
        contract: str,
        tx: str,
        block: int,
        size: int,
        root: str,
        head_size: int,
        proof: Sequence[str],
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Records that a head of this ledger was anchored on a chain. The agent checks with the proof that the
        head is one of its own history; chain, contract, transaction and block are what the caller says.

        :param chain_id: Id of the chain.
        :param contract: The contract `LedgerAnchor`.
        :param tx: The transaction that anchored it.
        :param block: The block of that transaction.
        :param size: Number of records of the anchored head.
        :param root: Its RFC 6962 root.
        :param head_size: Number of records of a head that the ledger has now, or had a moment ago.
        :param proof: RFC 6962 consistency proof from the anchored head to that one; empty when it is the same.
        """
        reply: t.Reply = self._invoke(
            "ledger-anchored", {"chain_id": chain_id, "contract": contract, "tx": tx, "block": block, "size": size, "root": root, "head_size": head_size, "proof": proof}, call_timeout, dry_run
        )
        return reply

    def ledger_blob(
        self,
        category: str,
        action: str,
        ciphertext: str,
        *,
        data: Optional[Mapping[str, Any]] = None,
        resource: Optional[str] = None,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.LedgerBlobReply:
        """Keeps an encrypted file beside the ledger and records in the caller's name what it is about. The record
        commits to the file by the hash of its ciphertext; erasing the file, or the key to it, leaves every
        proof valid. Whatever does not have the form of an `age` file is refused.

        :param category: Category of the event, such as `network`.
        :param action: What happened, such as `tenant-network-created`; never the name of an action of this
        catalog.
        :param ciphertext: The encrypted file.
        :param data: Details that everybody who reads the ledger may know. Without it `{}`.
        :param resource: What it happened to.
        """
        reply: t.LedgerBlobReply = self._invoke(
            "ledger-blob", {"category": category, "action": action, "ciphertext": ciphertext, "data": data, "resource": resource}, call_timeout, dry_run
        )
        return reply

    def ledger_shred(
        self,
        sha256: str,
        reason: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.Reply:
        """Erases an encrypted file of `ledger-blob` for good. The records that commit to it stay, and so does
        every proof. What was begun is finished by the next start of the agent. Copies elsewhere are beyond it:
        erase the key, too. A rule permits this by its name only, never by a pattern.

        :param sha256: Hash of the ciphertext, as `ledger-blob` answered it.
        :param reason: Why, for whoever asks later.
        """
        reply: t.Reply = self._invoke(
            "ledger-shred", {"sha256": sha256, "reason": reason}, call_timeout, dry_run
        )
        return reply

    def ledger_prune(
        self,
        before: int,
        reason: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.LedgerPruneReply:
        """Deletes the payloads of the oldest 65536 records that still have theirs, where all of them stand below
        `before` and are older than `limits.ledger_retention_days`. Hashes, signatures and every proof stay; a
        record says so before anything is deleted. Damage is not deleted but reported. What was begun is
        finished by the next start of the agent. Ask again while `left` is more than 0. A rule permits this by
        its name only, never by a pattern.

        :param before: Height of the first record that has to stay.
        :param reason: Why, for whoever asks later.
        """
        reply: t.LedgerPruneReply = self._invoke(
            "ledger-prune", {"before": before, "reason": reason}, call_timeout, dry_run
        )
        return reply

    def ledger_cosign(
        self,
        checkpoint: str,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.LedgerCosignReply:
        """Takes what witnesses said about a head that was published lately: valid cosignatures of the witnesses in
        `/etc/blockhost/ledger-witnesses` are kept in the ledger and published with the head. It makes no
        record: that would be a new head, to be cosigned again.

        :param checkpoint: The checkpoint with the cosignatures.
        """
        reply: t.LedgerCosignReply = self._invoke(
            "ledger-cosign", {"checkpoint": checkpoint}, call_timeout, dry_run
        )
        return reply

    def ledger_rotate_key(
        self,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.LedgerRotateKeyReply:
        """Begins an epoch of the ledger: makes a new signing key, names it in a record signed with the old one,
        signs on with the new one, and erases the old one. By default for root alone.
        """
        reply: t.LedgerRotateKeyReply = self._invoke(
            "ledger-rotate-key", {}, call_timeout, dry_run
        )
        return reply

    def agent_info(
        self,
        *,
        call_timeout: Optional[float] = None,
        dry_run: bool = False,
    ) -> t.AgentInfoReply:
        """Version, backend, Landlock ABI, uptime, counters and ledger head.
        Changes nothing.
        """
        reply: t.AgentInfoReply = self._invoke(
            "agent-info", {}, call_timeout, dry_run
        )
        return reply
