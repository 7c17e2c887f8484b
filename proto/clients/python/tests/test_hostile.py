"""Servers that break every rule, against both clients. Needs no agent."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import struct
import tempfile
import threading
import unittest
from typing import Any, Callable, Dict, List

import blockhost_root_agent as blocking
from blockhost_root_agent import RootAgentConnectionError, RootAgentError, RootAgentTimeoutError, aio
from fake import Behaviour, FakeAgent, Talk, answering, arguments, frame, polite

MIB = 1 << 20
CATALOG: List[Dict[str, Any]] = json.load(open(os.environ["BLOCKHOST_CATALOG"], encoding="utf-8"))["actions"]

Ask = Callable[..., Dict[str, Any]]


class Blocking:
    """The blocking client, behind what both have in common."""

    def __init__(self, path: str, **options: Any) -> None:
        self.client = blocking.RootAgentClient(path, **options)

    def call(self, *args: Any, **named: Any) -> Any:
        return self.client.call(*args, **named)

    def method(self, name: str, /, **named: Any) -> Any:
        return getattr(self.client, name)(**named)

    def call_many(self, *args: Any, **named: Any) -> Any:
        return self.client.call_many(*args, **named)

    def close(self) -> None:
        self.client.close()

    end = close


class Coroutines:
    """The asyncio client, each call in the same loop."""

    def __init__(self, path: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = aio.RootAgentClient(path, **options)

    def call(self, *args: Any, **named: Any) -> Any:
        return self.loop.run_until_complete(self.client.call(*args, **named))

    def method(self, name: str, /, **named: Any) -> Any:
        return self.loop.run_until_complete(getattr(self.client, name)(**named))

    def call_many(self, *args: Any, **named: Any) -> Any:
        return self.loop.run_until_complete(self.client.call_many(*args, **named))

    def close(self) -> None:
        self.client.close()

    def end(self) -> None:
        self.client.close()
        self.loop.close()


class Both(unittest.TestCase):
    """Every test of it runs once per client."""

    def with_each(self, behaviour: Behaviour, check: Callable[[Any, FakeAgent], None], **options: Any) -> None:
        for kind in (Blocking, Coroutines):
            with self.subTest(client=kind.__name__), FakeAgent(behaviour) as server:
                client = kind(server.path, **{"timeout": 20, **options})
                try:
                    check(client, server)
                finally:
                    client.end()

    def assert_broken(self, behaviour: Behaviour, words: str) -> None:
        def check(client: Any, server: FakeAgent) -> None:
            with self.assertRaisesRegex(RootAgentConnectionError, words) as caught:
                client.call("qm-list")
            self.assertTrue(caught.exception.maybe_executed)
            # Whatever came, this connection is not used again.
            before = server.connections
            with self.assertRaises(RootAgentConnectionError):
                client.call("qm-list")
            self.assertEqual(server.connections, before + 1)

        self.with_each(behaviour, check)


class Answers(Both):
    def test_an_impossible_length_breaks_the_connection(self) -> None:
        for length in (0, 16 * MIB + 1, 0x7FFF_FFFF, 0xFFFF_FFFF):

            def announce(talk: Talk, length: int = length) -> None:
                talk.read()
                talk.send(struct.pack(">I", length))
                talk.hang()

            self.assert_broken(announce, "announced")

    def test_an_answer_that_ends_early_is_no_answer(self) -> None:
        for data in (b"", b"\0\0", frame(b'{"ok":true')[:-3], struct.pack(">I", 100)):

            def stop(talk: Talk, data: bytes = data) -> None:
                talk.read()
                talk.send(data)

            self.assert_broken(stop, "closed it without an answer")

    def test_what_is_not_a_json_object_is_no_answer(self) -> None:
        for payload in (
            b"x",
            b"[]",
            b"null",
            b"true",
            b'"ok"',
            b"{}{}",
            b'{"ok":true,"output":"","id":"1"} x',
            b'\xef\xbb\xbf{"ok":true,"output":"","id":"1"}',
            b'{"ok":true,"output":"\xff","id":"1"}',
            b'{"ok":true,"output":"","id":"1","n":NaN}',
            b'{"ok":true,"output":"","id":"1","output":"x"}',
            b'{"ok":true,"output":"","id":"1","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            b'{"ok":true,"output":"","id":"1","n":' + b"9" * 10_000 + b"}x",
        ):
            self.assert_broken(answering(payload), "not valid JSON|not a JSON object")

    def test_an_answer_of_the_wrong_shape_is_no_answer(self) -> None:
        for payload in (
            b"{}",
            b'{"ok":1,"output":"","id":"1"}',
            b'{"ok":"true","output":"","id":"1"}',
            b'{"ok":true,"id":"1"}',
            b'{"ok":true,"output":null,"id":"1"}',
            b'{"ok":true,"output":7,"id":"1"}',
            b'{"ok":false,"error":"x","id":"1"}',
            b'{"ok":false,"error":["x"],"code":"busy","id":"1"}',
            b'{"ok":false,"error":"x","code":7,"id":"1"}',
        ):
            self.assert_broken(answering(payload), "lacks or misuses")

    def test_an_answer_to_another_question_is_not_taken(self) -> None:
        for mark in ('"2"', '""', "1", "null", '"1 "'):
            payload = f'{{"ok":true,"output":"","id":{mark}}}'.encode()
            self.assert_broken(answering(payload), "another question")
        self.assert_broken(answering(b'{"ok":true,"output":""}'), "another question")

    def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next(self) -> None:
        def behave(talk: Talk) -> None:
            request = talk.read()
            assert request is not None
            talk.succeed(request, output=f"connection {talk.number}")
            talk.send(frame(b'{"ok":true,"output":"forged","id":"2"}'))
            talk.hang()

        def check(client: Any, server: FakeAgent) -> None:
            for number in range(3):
                self.assertEqual(client.call("qm-list")["output"], f"connection {number}")
                # The forged one has arrived before the next question.
                while not _something_arrived(client):
                    pass

        self.with_each(behave, check)

    def test_a_late_answer_is_never_taken_for_the_next(self) -> None:
        late = threading.Event()

        def behave(talk: Talk) -> None:
            request = talk.read()
            assert request is not None
            if talk.number == 0:
                late.wait()
            talk.succeed(request, output=f"connection {talk.number}")
            talk.hang()

        def check(client: Any, server: FakeAgent) -> None:
            late.clear()
            with self.assertRaises(RootAgentTimeoutError):
                client.call("qm-list", timeout=0.2)
            late.set()
            self.assertEqual(client.call("qm-list")["output"], "connection 1")

        self.with_each(behave, check)

    def test_an_answer_in_single_bytes_is_whole_in_the_end(self) -> None:
        def behave(talk: Talk) -> None:
            request = talk.read()
            assert request is not None
            answer = json.dumps({"ok": True, "output": "grüße", "id": request["id"]}, ensure_ascii=False)
            for byte in frame(answer.encode()):
                talk.send(bytes([byte]))
            talk.hang()

        def check(client: Any, server: FakeAgent) -> None:
            self.assertEqual(client.call("qm-list")["output"], "grüße")

        self.with_each(behave, check)

    def test_the_largest_answer_that_is_read_arrives_whole(self) -> None:
        def behave(talk: Talk) -> None:
            request = talk.read()
            assert request is not None
            empty = len(json.dumps({"ok": True, "output": "", "id": request["id"]}))
            talk.succeed(request, output="x" * (16 * MIB - empty))
            talk.hang()

        def check(client: Any, server: FakeAgent) -> None:
            self.assertGreater(len(client.call("qm-list")["output"]), 16 * MIB - 100)

        self.with_each(behave, check)

    def test_a_large_request_is_sent_whole_to_a_slow_reader(self) -> None:
        text = "ü" * (4 * MIB)

        def check(client: Any, server: FakeAgent) -> None:
            client.call("ledger-append", data={"text": text})
            self.assertEqual(server.requests[0]["params"]["data"]["text"], text)

        self.with_each(polite, check)


def _something_arrived(client: Any) -> bool:
    (connection,) = client.client._idle
    return not connection.usable()


class Refusals(Both):
    def test_a_refusal_is_an_error_with_code_message_and_answer(self) -> None:
        def behave(talk: Talk) -> None:
            while True:
                request = talk.read()
                if request is None:
                    return
                answer = {"ok": False, "error": "there is no VM 100", "code": "not_found", "id": request["id"]}
                talk.send(frame(json.dumps(answer).encode()))

        def check(client: Any, server: FakeAgent) -> None:
            with self.assertRaises(RootAgentError) as caught:
                client.call("qm-start", vmid=100)
            error = caught.exception
            self.assertEqual((error.code, error.message), ("not_found", "there is no VM 100"))
            self.assertEqual(error.response["ok"], False)
            self.assertEqual(str(error), "not_found: there is no VM 100")
            self.assertEqual(pickle.loads(pickle.dumps(error)).response, error.response)
            # A refusal is an answer: the connection stays good.
            with self.assertRaises(RootAgentError):
                client.call("qm-start", vmid=100)
            self.assertEqual(server.connections, 1)

        self.with_each(behave, check)

    def test_last_words_before_a_request_was_read_are_heard(self) -> None:
        said = frame(b'{"ok":false,"error":"too many connections","code":"busy"}')

        def behave(talk: Talk) -> None:
            talk.send(said)

        def check(client: Any, server: FakeAgent) -> None:
            for _ in range(20):
                with self.assertRaises(RootAgentError) as caught:
                    client.call("ledger-append", data={"text": "x" * MIB})
                self.assertEqual(caught.exception.code, "busy")

        self.with_each(behave, check)


class Reaching(Both):
    def test_a_stalled_agent_is_given_up_on_wherever_it_stalls(self) -> None:
        def in_the_answer(talk: Talk) -> None:
            talk.read()
            talk.send(frame(b'{"ok":true}')[:6])
            talk.hang()

        def in_the_request(talk: Talk) -> None:
            threading.Event().wait(0.5)

        for behaviour in (lambda talk: talk.hang(), in_the_answer, in_the_request):

            def check(client: Any, server: FakeAgent) -> None:
                with self.assertRaisesRegex(RootAgentTimeoutError, "if it began, the ledger has") as caught:
                    client.call("ledger-append", timeout=0.2, data={"text": "x" * (8 * MIB)})
                self.assertTrue(caught.exception.maybe_executed)
                self.assertIsInstance(caught.exception, TimeoutError)

            self.with_each(behaviour, check)

    def test_an_agent_that_accepts_nobody_is_given_up_on(self) -> None:
        for kind in (Blocking, Coroutines):
            with self.subTest(client=kind.__name__), tempfile.TemporaryDirectory() as directory:
                path = os.path.join(directory, "agent.sock")
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(path)
                    listener.listen(0)
                    waiting = []
                    try:
                        while True:
                            sock = socket.socket(socket.AF_UNIX)
                            sock.setblocking(False)
                            waiting.append(sock)
                            sock.connect(path)
                    except BlockingIOError:
                        pass
                    client = kind(path)
                    with self.assertRaisesRegex(RootAgentTimeoutError, "accepted no connection") as caught:
                        client.call("qm-list", timeout=0.2)
                    self.assertFalse(caught.exception.maybe_executed)
                    client.end()
                    for sock in waiting:
                        sock.close()

    def test_an_agent_that_is_not_there_is_said_to_be_unreachable(self) -> None:
        for kind in (Blocking, Coroutines):
            with self.subTest(client=kind.__name__), tempfile.TemporaryDirectory() as directory:
                missing = os.path.join(directory, "missing.sock")
                stale = os.path.join(directory, "stale.sock")
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(stale)
                for path in (missing, stale, directory, os.path.join(directory, "d" * 200, "x" * 100)):
                    client = kind(path)
                    with self.assertRaisesRegex(RootAgentConnectionError, "is blockhost-root-agent running") as caught:
                        client.call("qm-list")
                    self.assertFalse(caught.exception.maybe_executed)
                    client.end()

    def test_a_path_too_long_for_an_address_is_reached_all_the_same(self) -> None:
        for kind in (Blocking, Coroutines):
            with self.subTest(client=kind.__name__), FakeAgent() as server:
                long = os.path.join(os.path.dirname(server.path), "d" * 120)
                os.mkdir(long)
                moved = os.path.join(long, "agent.sock")
                os.rename(server.path, moved)
                client = kind(moved, timeout=20)
                self.assertTrue(client.call("qm-list")["ok"])
                client.end()

    def test_a_connection_that_was_closed_while_idle_is_replaced(self) -> None:
        def once(talk: Talk) -> None:
            request = talk.read()
            assert request is not None
            talk.succeed(request)

        def check(client: Any, server: FakeAgent) -> None:
            for number in range(1, 6):
                self.assertTrue(client.call("qm-list")["ok"])
                self.assertEqual(server.connections, number)
                while not _something_arrived(client):
                    pass

        self.with_each(once, check)

    def test_one_connection_serves_calls_that_follow_each_other(self) -> None:
        def check(client: Any, server: FakeAgent) -> None:
            for _ in range(20):
                client.call("qm-list")
            self.assertEqual(server.connections, 1)
            client.close()
            client.call("qm-list")
            self.assertEqual(server.connections, 2)

        self.with_each(polite, check)


class Requests(Both):
    def test_every_function_sends_exactly_the_parameters_of_the_catalog(self) -> None:
        def check(client: Any, server: FakeAgent) -> None:
            for action in CATALOG:
                name = action["name"].replace("-", "_")
                every = {param: f"value of {param}" for param in action["param_order"]}
                needed = {param: every[param] for param in action["params"]["required"]}
                for params in (every, needed):
                    client.method(name, **arguments(params))
                    request = server.requests[-1]
                    self.assertEqual((request["action"], request["params"]), (action["name"], params))
                    self.assertNotIn("dry_run", request)
            client.method("qm_start", vmid=100, dry_run=True)
            self.assertIs(server.requests[-1]["dry_run"], True)

        self.with_each(polite, check)

    def test_the_modules_have_a_function_for_every_action_and_none_more(self) -> None:
        names = sorted(action["name"].replace("-", "_") for action in CATALOG)
        from blockhost_root_agent import _aio_functions, _functions

        self.assertEqual(sorted(_functions.__all__), names)
        self.assertEqual(sorted(_aio_functions.__all__), names)
        for name in names:
            self.assertTrue(getattr(blocking, name).__doc__)
            self.assertTrue(asyncio.iscoroutinefunction(getattr(aio, name)))

    def test_a_parameter_may_be_called_as_the_call_s_own_arguments(self) -> None:
        def check(client: Any, server: FakeAgent) -> None:
            client.call("ledger-append", timeout=5, category="a", action="b", data={})
            self.assertEqual(server.requests[-1]["params"], {"category": "a", "action": "b", "data": {}})
            client.call("qm-shutdown", 5, vmid=100, params={"timeout": 60})
            self.assertEqual(server.requests[-1]["params"], {"vmid": 100, "timeout": 60})

        self.with_each(polite, check)

    def test_what_json_cannot_hold_is_refused_before_it_is_sent(self) -> None:
        def check(client: Any, server: FakeAgent) -> None:
            for value in (float("nan"), object(), b"bytes", "\ud800"):
                with self.assertRaises((TypeError, ValueError)):
                    client.call("qm-list", value=value)
            self.assertEqual(server.requests, [])
            self.assertTrue(client.call("qm-list", value=("a", {"b": 1}))["ok"])
            self.assertEqual(server.requests[-1]["params"], {"value": ["a", {"b": 1}]})

        self.with_each(polite, check)

    def test_pipelined_requests_are_answered_in_order_over_one_connection(self) -> None:
        def behave(talk: Talk) -> None:
            while True:
                request = talk.read()
                if request is None:
                    return
                number = request["params"]["number"]
                if number % 7 == 3:
                    refusal = {"ok": False, "error": str(number), "code": "busy", "id": request["id"]}
                    talk.send(frame(json.dumps(refusal).encode()))
                else:
                    talk.succeed(request, output=str(number))

        def check(client: Any, server: FakeAgent) -> None:
            answers = client.call_many([("qm-list", {"number": number}) for number in range(100)])
            said = [answer.message if isinstance(answer, RootAgentError) else answer["output"] for answer in answers]
            self.assertEqual(said, [str(number) for number in range(100)])
            self.assertEqual(sum(isinstance(answer, RootAgentError) for answer in answers), 14)
            self.assertEqual(server.connections, 1)

        self.with_each(behave, check)

    def test_a_connection_that_breaks_within_a_pipeline_breaks_it_all(self) -> None:
        def behave(talk: Talk) -> None:
            for _ in range(3):
                request = talk.read()
                assert request is not None
                talk.succeed(request)

        def check(client: Any, server: FakeAgent) -> None:
            with self.assertRaises(RootAgentConnectionError):
                client.call_many([("qm-list", {})] * 10)

        self.with_each(behave, check)


class Concurrency(unittest.TestCase):
    def test_threads_share_a_client_and_get_their_own_answers(self) -> None:
        def echo(talk: Talk) -> None:
            while True:
                request = talk.read()
                if request is None:
                    return
                talk.succeed(request, output=str(request["params"]["number"]))

        with FakeAgent(echo) as server, blocking.RootAgentClient(server.path, 20, max_connections=4) as client:
            wrong: List[int] = []

            def work(number: int) -> None:
                for _ in range(20):
                    if client.call("qm-list", number=number)["output"] != str(number):
                        wrong.append(number)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(wrong, [])
            self.assertEqual(len(server.requests), 320)
            self.assertLessEqual(server.connections, 4)

    def test_a_child_of_fork_does_not_speak_on_its_parent_s_connection(self) -> None:
        with FakeAgent() as server, blocking.RootAgentClient(server.path, 20) as client:
            client.call("qm-list")
            child = os.fork()
            if child == 0:
                try:
                    client.call("qm-list")
                    os._exit(0)
                finally:
                    os._exit(1)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            client.call("qm-list")
            self.assertEqual(server.connections, 2)

    def test_fifty_coroutines_share_few_connections(self) -> None:
        async def all_at_once(client: aio.RootAgentClient) -> List[Dict[str, Any]]:
            return await asyncio.gather(*(client.call("qm-list", number=n) for n in range(50)))

        def echo(talk: Talk) -> None:
            while True:
                request = talk.read()
                if request is None:
                    return
                talk.succeed(request, output=str(request["params"]["number"]))

        with FakeAgent(echo) as server:
            client = aio.RootAgentClient(server.path, 20, max_connections=8)
            # A second loop uses the same client: nothing in it belongs to the first.
            for _ in range(2):
                answers = asyncio.run(all_at_once(client))
                self.assertEqual([answer["output"] for answer in answers], [str(n) for n in range(50)])
            self.assertLessEqual(server.connections, 8)
            client.close()

    def test_a_cancelled_call_leaves_no_connection_behind_that_is_used_again(self) -> None:
        def behave(talk: Talk) -> None:
            request = talk.read()
            assert request is not None
            if talk.number == 0:
                talk.hang()
            talk.succeed(request, output=f"connection {talk.number}")
            talk.hang()

        async def cancelled(path: str) -> str:
            client = aio.RootAgentClient(path, 20)
            task = asyncio.ensure_future(client.call("qm-list"))
            while not server.requests:
                await asyncio.sleep(0.001)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            answer = await client.call("qm-list")
            client.close()
            return str(answer["output"])

        with FakeAgent(behave) as server:
            self.assertEqual(asyncio.run(cancelled(server.path)), "connection 1")


if __name__ == "__main__":
    unittest.main()
