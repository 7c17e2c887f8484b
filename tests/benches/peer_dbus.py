#!/usr/bin/env python3
"""The benchmark's peer on D-Bus: a service in Python (python3-dbus) behind a bus of its own, as many host tools are.

One method, which answers what agent-info answers. Written for the benchmark.
"""
import json
import sys
import time

import dbus
import dbus.bus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

STARTED = time.monotonic()


class Agent(dbus.service.Object):
    @dbus.service.method("org.blockhost.Peer", in_signature="", out_signature="s")
    def Info(self):
        return json.dumps({"version": "peer", "uptime_s": int(time.monotonic() - STARTED), "counters": {}})


if __name__ == "__main__":
    loop = dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
    bus = dbus.bus.BusConnection(sys.argv[1], mainloop=loop)
    name = dbus.service.BusName("org.blockhost.Peer", bus)
    agent = Agent(bus, "/org/blockhost/Peer")
    GLib.MainLoop().run()
