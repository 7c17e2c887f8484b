"""Calls, waits for a line, calls again: in between, the agent is restarted."""

import asyncio

import blockhost_root_agent as blocking
from blockhost_root_agent import aio


async def main() -> None:
    blocking.agent_info()
    await aio.agent_info()
    print("asked", flush=True)
    input()
    for _ in range(3):
        blocking.agent_info()
        await aio.agent_info()
    print("asked again", flush=True)


asyncio.run(main())
