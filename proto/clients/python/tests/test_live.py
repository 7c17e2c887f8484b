"""Both clients against a live agent, whose ``qm`` is a script that fails on purpose. Started by tests/tests/clients.rs in
a world of its own, as root."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
import unittest
from typing import Any, Callable, Dict, List, Optional

import blockhost_root_agent as blocking
from blockhost_root_agent import RootAgentConnectionError, RootAgentError, aio
from fake import arguments

with open(os.environ["BLOCKHOST_CATALOG"], encoding="utf-8") as file:
    CATALOG: List[Dict[str, Any]] = json.load(file)["actions"]

Call = Callable[..., Dict[str, Any]]


def coroutine_call(action: str, /, *args: Any, **named: Any) -> Dict[str, Any]:
    return asyncio.run(aio.call(action, *args, **named))


BOTH: Dict[str, Call] = {"blocking": blocking.call, "coroutines": coroutine_call}


def process(*last_words: str) -> Optional[int]:
    """The process whose command line ends so; the world has its own numbers."""
    ending = "".join(f"\0{word}" for word in last_words).encode() + b"\0"
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if file.read().endswith(ending):
                        return int(name)
            except OSError:
                pass
    return None


def wait_for(what: str, happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not happened():
        if time.monotonic() > until:
            raise AssertionError(f"it did not happen within 30 s: {what}")
        time.sleep(0.01)


class Live(unittest.TestCase):
    def assert_refused(self, code: str, call: Call, action: str, **params: Any) -> RootAgentError:
        with self.assertRaises(RootAgentError) as caught:
            call(action, **params)
        self.assertEqual(caught.exception.code, code, str(caught.exception))
        self.assertTrue(caught.exception.message)
        return caught.exception

    def test_every_code_reaches_the_caller_as_it_is(self) -> None:
        deep: Any = 1
        for _ in range(20):
            deep = [deep]
        for name, call in BOTH.items():
            with self.subTest(client=name):
                seen = {
                    self.assert_refused(code, call, action, **params).code
                    for code, action, params in [
                        ("unknown_action", "qm-reboot-the-world", {}),
                        ("bad_params", "qm-start", {"vmid": 99}),
                        ("bad_params", "qm-start", {"vmid": "100"}),
                        ("bad_params", "qm-start", {"vmid": 100, "force": True}),
                        ("bad_json", "ledger-append", {"category": "a", "data": {"x": deep}, "params": {"action": "b"}}),
                        ("bad_frame", "ledger-append", {"data": {"x": "y" * (1 << 20)}}),
                        ("forbidden", "ip6-route-add", {"address": "fd00::1/128", "dev": "lo"}),
                        ("not_found", "qm-start", {"vmid": 201}),
                        ("conflict", "qm-start", {"vmid": 202}),
                        ("busy", "qm-start", {"vmid": 203}),
                        ("timeout", "qm-start", {"vmid": 204}),
                        ("failed", "qm-start", {"vmid": 205}),
                    ]
                }
                seen.add(self._internal(call))
                self.assertEqual(seen, set(blocking.ERROR_CODES))

    def _internal(self, call: Call) -> str:
        """The compartment dies while it works."""
        errors: List[RootAgentError] = []

        def start() -> None:
            try:
                call("qm-start", vmid=206)
            except RootAgentError as error:
                errors.append(error)

        thread = threading.Thread(target=start)
        before = process("internal", "vm")
        assert before is not None
        thread.start()
        wait_for("the action begins", lambda: process("start", "206") is not None)
        os.kill(before, signal.SIGKILL)
        thread.join()
        wait_for("the compartment is back", lambda: process("internal", "vm") not in (None, before))
        # It is back, and so is its work.
        self.assertEqual(call("qm-status", vmid=100)["ok"], True)
        return errors[0].code

    def test_too_many_connections_are_told_so(self) -> None:
        async def crowd() -> List[object]:
            client = aio.RootAgentClient(max_connections=100, timeout=30)
            calls = [client.call("qm-start", vmid=210) for _ in range(80)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            client.close()
            return list(answers)

        answers = asyncio.run(crowd())
        busy = [answer for answer in answers if isinstance(answer, RootAgentError) and answer.code == "busy"]
        self.assertGreaterEqual(len(busy), 16, answers)
        self.assertGreaterEqual(sum(isinstance(answer, dict) for answer in answers), 1, answers)

    def test_answers_have_the_fields_that_the_catalog_names(self) -> None:
        for name, call in BOTH.items():
            with self.subTest(client=name):
                wallet = call("generate-wallet", name=f"test-{name}")
                self.assertRegex(wallet["address"], "^0x[0-9A-Fa-f]{40}$")
                self.assertTrue(wallet["keyfile"].endswith(f"/test-{name}.key"))
                self.assertRegex(wallet["receipt"]["leaf"], "^[0-9a-f]{64}$")
                self.assert_refused("conflict", call, "generate-wallet", name=f"test-{name}")
                shell = call("qm-guest-exec", vmid=100, command="true")
                info = call("agent-info")
                for action, answer in (("generate-wallet", wallet), ("qm-guest-exec", shell), ("agent-info", info)):
                    known = {"ok", "output", "id", "receipt", *self._returns(action)["properties"]}
                    self.assertLessEqual(set(self._returns(action)["required"]), set(answer), action)
                    self.assertLessEqual(set(answer), known, action)
                self.assertEqual((shell["exitcode"], shell["stdout"]), (3, "hello\n"))

    def _returns(self, name: str) -> Dict[str, Any]:
        (returns,) = (action["returns"] for action in CATALOG if action["name"] == name)
        assert isinstance(returns, dict)
        return returns

    def test_text_in_every_script_comes_and_goes_unchanged(self) -> None:
        for name, call in BOTH.items():
            with self.subTest(client=name):
                config = json.loads(call("qm-config", vmid=100)["output"])
                self.assertEqual(config["description"], "grüße 💾")
                data = {"text": "grüße 💾 \u202e\u0000"[:-1], "quote": '"\\\n'}
                append = call("ledger-append", category="test", data=data, params={"action": "noted"})
                self.assertIn("receipt", append)

    def test_a_long_output_arrives_whole_and_a_longer_one_says_that_it_is_cut(self) -> None:
        for name, call in BOTH.items():
            with self.subTest(client=name):
                whole = call("qm-config", vmid=208)
                self.assertEqual(len(json.loads(whole["output"])["description"]), 20_000)
                self.assertNotIn("truncated", whole)
                cut = call("qm-config", vmid=209)
                self.assertIs(cut["truncated"], True)
                self.assertGreater(len(cut["output"]), 30_000)

    def test_every_example_of_the_catalog_passes_validation(self) -> None:
        for module in (blocking, aio):
            with self.subTest(module=module.__name__):
                wrong = []
                forbidden = set()
                for action in CATALOG:
                    function = getattr(module, action["name"].replace("-", "_"))
                    try:
                        reply = function(**arguments(action["example"]), dry_run=True)
                        reply = asyncio.run(reply) if asyncio.iscoroutine(reply) else reply
                        if "receipt" in reply or not reply["output"]:
                            wrong.append((action["name"], reply))
                    except RootAgentError as error:
                        if error.code == "forbidden":
                            # Valid, and on none of this host's lists.
                            forbidden.add(action["name"])
                        else:
                            wrong.append((action["name"], error))
                self.assertEqual(wrong, [])
                self.assertLess(len(forbidden), len(CATALOG) // 2, forbidden)

    def test_a_dry_run_does_nothing(self) -> None:
        blocking.generate_wallet("never-made", dry_run=True)
        blocking.generate_wallet("never-made", dry_run=True)
        book = os.path.join(os.environ["BLOCKHOST_ROOT"], "etc/blockhost/never-made.key")
        self.assertFalse(os.path.exists(book))

    def test_fifty_coroutines_change_the_host_at_once(self) -> None:
        addresses = [f"fd77:b10c::c:{number:x}" for number in range(1, 51)]

        async def everywhere() -> None:
            await asyncio.gather(*(aio.ip6_route_add(f"{address}/128", "vmbr0") for address in addresses))

        asyncio.run(everywhere())
        listing = subprocess.run(["ip", "-6", "route"], check=True, capture_output=True, text=True).stdout
        for address in addresses:
            self.assertIn(f"{address} dev vmbr0", listing)
        answers = blocking.call_many(
            [("ip6-route-del", {"address": f"{address}/128", "dev": "vmbr0"}) for address in addresses + addresses]
        )
        self.assertEqual([isinstance(answer, RootAgentError) for answer in answers], [False] * 50 + [True] * 50)
        codes = {answer.code for answer in answers if isinstance(answer, RootAgentError)}
        self.assertEqual(codes, {"not_found"})

    def test_a_slow_action_does_not_delay_another(self) -> None:
        async def both() -> None:
            slow = asyncio.ensure_future(aio.qm_start(207))
            await asyncio.sleep(0)
            for _ in range(10):
                await aio.qm_status(100)
            self.assertFalse(slow.done())
            await slow

        asyncio.run(both())

    def test_giving_up_early_says_that_it_may_have_happened(self) -> None:
        for name, call in BOTH.items():
            with self.subTest(client=name), self.assertRaises(RootAgentConnectionError) as caught:
                call("qm-start", vmid=207, timeout=0.1)
            self.assertTrue(caught.exception.maybe_executed)


if __name__ == "__main__":
    unittest.main()
