#!/usr/bin/env python3
"""The benchmark's peer oslo.privsep: OpenStack's way to privileges, as neutron uses it (routes by pyroute2).

The daemon is forked and keeps CAP_NET_ADMIN alone. Its protocol is its own, so the times are taken here: a line
`noop N` or `route N` on stdin is answered by one line of JSON, N times in microseconds.
"""
import ipaddress
import json
import os
import sys
import time

from oslo_config import cfg
from oslo_privsep import capabilities, priv_context
from pyroute2 import IPRoute

context = priv_context.PrivContext(
    __name__, cfg_section="privsep", pypath=__name__ + ".context", capabilities=[capabilities.CAP_NET_ADMIN]
)
netlink = None


@context.entrypoint
def noop():
    return {"ok": True, "output": "peer"}


@context.entrypoint
def route(address, dev):
    global netlink  # one socket for the life of the daemon: faster than neutron, which opens one for each call
    if netlink is None:
        netlink = IPRoute()
    index = netlink.link_lookup(ifname=dev)[0]
    netlink.route("replace", dst=str(ipaddress.IPv6Network(address)), oif=index)


def times(count, call):
    taken = []
    for number in range(count):
        begun = time.perf_counter_ns()
        call(number)
        taken.append((time.perf_counter_ns() - begun) / 1000)
    return taken


CALLS = {
    "noop": lambda _number: noop(),
    "route": lambda number: route(f"fd77:b10c::1:{number % 16 + 1:x}/128", "vmbr0"),
}


def main():
    cfg.CONF([], project="peer", default_config_files=[])
    context.start(priv_context.Method.FORK)
    noop()
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        print(json.dumps({"daemon": int(file.read().split()[0])}), flush=True)
    for line in sys.stdin:
        what, count = line.split()
        print(json.dumps(times(int(count), CALLS[what])), flush=True)


if __name__ == "__main__":
    main()
