"""What a program that uses the client may write, and what it may not. Checked by mypy, never run."""

from __future__ import annotations

from typing import Any, Dict, List, Union

import blockhost_root_agent as agent
from blockhost_root_agent import ErrorCode, Reply, RootAgentClient, RootAgentError, aio


def good() -> None:
    reply: Reply = agent.qm_start(100)
    index: int = reply["receipt"]["index"]
    address: str = agent.generate_wallet("hot")["address"]
    agent.iptables_open(443, comment="web")
    agent.iptables_open(443, proto="udp", comment="web", source="192.0.2.0/24", call_timeout=5)
    agent.qm_shutdown(100, timeout=60, call_timeout=90, dry_run=True)
    agent.qm_set(100, {"memory": 2048, "name": "web-1"})
    size: int = agent.agent_info()["ledger"]["size"]
    anything: Dict[str, Any] = agent.call("qm-shutdown", 90, vmid=100, params={"timeout": 60})
    many: List[Union[Reply, RootAgentError]] = agent.call_many([("qm-start", {"vmid": 100})])
    code: ErrorCode = "not_found"
    with RootAgentClient("/run/x.sock", timeout=3, max_connections=2) as client:
        client.ip6_route_add("fd00::1/128", "vmbr0")
    print(index, address, size, anything, many, code)


async def good_coroutines() -> None:
    address: str = (await aio.generate_wallet("hot"))["address"]
    async with aio.RootAgentClient() as client:
        await client.qm_start(100)
    print(address)


def bad() -> None:
    agent.qm_start("100")  # type: ignore[arg-type]
    agent.qm_start()  # type: ignore[call-arg]
    agent.qm_start(100, force=True)  # type: ignore[call-arg]
    agent.iptables_open(443, "tcp", "web")  # type: ignore[misc]
    agent.iptables_open(443, proto="icmp", comment="web")  # type: ignore[arg-type]
    agent.qm_start(100)["address"]  # type: ignore[typeddict-item]
    agent.qm_set(100, {"memory": [1]})  # type: ignore[dict-item]
    code: ErrorCode = "nope"  # type: ignore[assignment]
    print(code)
