#!/usr/bin/env python3
"""The benchmark's peer: what a root agent in plain Python looks like.

One asyncio server, the same wire format (u32 big-endian length, JSON object), one `ip` process per route change,
no ledger, no privilege separation. Written for the benchmark, as fast as this design is without tricks.
"""
import asyncio
import ipaddress
import json
import os
import re
import struct
import sys
import time

STARTED = time.monotonic()
COUNTS = {"requests": 0, "errors": 0}
IFNAME = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)


async def run(*argv):
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


async def agent_info(_params):
    return {"ok": True, "output": json.dumps({"version": "peer", "uptime_s": int(time.monotonic() - STARTED), "counters": COUNTS})}


def route(params):
    address = ipaddress.IPv6Network(params["address"])
    if address.prefixlen != 128:
        raise ValueError("address must be a /128")
    if not IFNAME.fullmatch(params["dev"]):
        raise ValueError("bad device name")
    return str(address), params["dev"]


async def route_add(params):
    address, dev = route(params)
    code, out, err = await run("ip", "-6", "route", "replace", address, "dev", dev)
    return {"ok": True, "output": out} if code == 0 else {"ok": False, "error": err}


async def route_del(params):
    address, dev = route(params)
    code, out, err = await run("ip", "-6", "route", "del", address, "dev", dev)
    return {"ok": True, "output": out} if code == 0 else {"ok": False, "error": err}


ACTIONS = {"agent-info": agent_info, "ip6-route-add": route_add, "ip6-route-del": route_del}


async def serve(reader, writer):
    try:
        while True:
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            if not 0 < length <= 1 << 20:
                break
            request = json.loads(await reader.readexactly(length))
            COUNTS["requests"] += 1
            try:
                response = await ACTIONS[request["action"]](request.get("params", {}))
            except Exception as error:  # a plain agent answers whatever went wrong
                COUNTS["errors"] += 1
                response = {"ok": False, "error": str(error)}
            body = json.dumps(response).encode()
            writer.write(struct.pack(">I", len(body)) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        pass
    finally:
        writer.close()


async def main(path):
    if os.path.exists(path):
        os.unlink(path)
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
