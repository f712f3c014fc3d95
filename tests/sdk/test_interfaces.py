"""The blocking and the asynchronous client are thin drivers of the same flows, and offer the same methods."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ostiary.agent import Agent, AsyncAgent, AsyncTask, Task
from ostiary.agent.identity import ServerRefused
from ostiary.client import Target, TokenRefused
from ostiary.client.refusals import MAX_CODE, MAX_TEXT, parse_refusal, read_object
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid, Refused, Unavailable

PAIRS = [(Agent, AsyncAgent), (Task, AsyncTask)]


def methods(kind: type[Any]) -> dict[str, str]:
    """Public methods and properties with their parameters and result, in the words of the blocking client."""
    signatures = {}
    for name, member in inspect.getmembers_static(kind):
        if name.startswith("_"):
            continue
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if inspect.isfunction(function):
            text = str(inspect.signature(function)).replace("AbstractAsyncContextManager", "AbstractContextManager")
            signatures[name] = re.sub(r"\bAsync(Agent|Task)\b", r"\1", text)
    return signatures


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
def test_the_blocking_client_has_the_methods_of_the_asynchronous_one(
    blocking: type[Any], asynchronous: type[Any]
) -> None:
    assert methods(blocking) == methods(asynchronous)
    assert len(methods(blocking)) >= 8


async def test_a_task_that_was_not_declared_yet_refuses_every_use(tmp_path: Path) -> None:
    path = tmp_path / "writer.json"
    path.write_text(json.dumps(jose.generate("ES256").jwk() | {"client_id": "writer", "issuer": "http://127.0.0.1:9"}))
    path.chmod(0o600)
    async with AsyncAgent.from_credential(path) as agent:
        task = agent.task("pay")
        assert repr(task) == "AsyncTask(not declared)"
        with pytest.raises(Invalid, match="not declared yet"):
            await task.get("http://127.0.0.1:9/")
        for use in (lambda: task.auth(), lambda: task.task("part"), lambda: task.delegate("other", "part")):
            with pytest.raises(Invalid, match="not declared yet"):
                use()


LISTS: dict[str, Callable[[Any, str, Any], Any]] = {
    "account_token": lambda agent, member, value: agent.account_token("github", **{member: value}),
    "certificate": lambda agent, member, value: agent.certificate(**{member: value}),
    "delegate": lambda agent, member, value: agent.delegate("other", "pay", **{"words": "pay", member: value}),
    "elevate": lambda agent, member, value: agent.elevate(reason="pay", **{member: value}),
    "task": lambda agent, member, value: agent.task("pay", **{"words": "pay", member: value}),
}
"""Call of each method of an agent that has parameters with lists; the arguments are the agent, a parameter, a value."""


def list_parameters(kind: type[Any]) -> list[tuple[str, str]]:
    """Return (method, parameter) for each parameter of a public method that is annotated as an iterable."""
    functions = inspect.getmembers(kind, inspect.isfunction)
    return [
        (name, parameter)
        for name, function in functions
        for parameter, annotation in function.__annotations__.items()
        if not name.startswith("_") and parameter != "return" and "Iterable" in str(annotation)
    ]


def test_the_methods_of_tasks_have_only_the_lists_of_the_methods_of_agents() -> None:
    assert {*list_parameters(Task)} <= {*list_parameters(Agent)}
    assert {method for method, _ in list_parameters(Agent)} == LISTS.keys()


@pytest.mark.parametrize("value", ["", "files:read", {}, {"type": "tool"}], ids=str)
@pytest.mark.parametrize(("method", "member"), list_parameters(Agent))
async def test_one_value_in_place_of_a_list_is_refused_before_a_request(
    tmp_path: Path, method: str, member: str, value: Any
) -> None:
    path = tmp_path / "writer.json"
    path.write_text(json.dumps(jose.generate("ES256").jwk() | {"client_id": "writer", "issuer": "http://127.0.0.1:9"}))
    path.chmod(0o600)

    async def call(agent: AsyncAgent) -> None:
        result = LISTS[method](agent, member, value)
        await (result.__aenter__() if isinstance(result, AsyncTask) else result)

    refused = f"`{member}` is one value instead of a list"
    with Agent.from_credential(path) as blocking, pytest.raises(Invalid, match=refused):
        LISTS[method](blocking, member, value)
    async with AsyncAgent.from_credential(path) as asynchronous:
        with pytest.raises(Invalid, match=refused):
            await call(asynchronous)


@pytest.mark.parametrize("place", range(4))
def test_an_empty_text_in_a_target_is_refused(place: int) -> None:
    texts: list[Any] = [None] * 4
    for limit in ("x", None):
        texts[place] = limit
        assert Target(*texts) == Target(resource=texts[0], scope=texts[1], task=texts[2], subject=texts[3])
    texts[place] = ""
    with pytest.raises(Invalid, match="empty"):
        Target(*texts)


REFUSALS: list[tuple[int, bytes, type[Refused], str, str, str]] = [
    (403, b'{"error":"no","message":"m","hint":"h"}', ServerRefused, "no", "m", "h"),
    (400, b'{"error":"invalid_grant","error_description":"d"}', ServerRefused, "invalid_grant", "d", ""),
    (404, b"", ServerRefused, "refused", "HTTP 404", ""),
    (404, b'"no such action"', ServerRefused, "refused", "no such action", ""),
    (404, b"<html>", ServerRefused, "refused", "HTTP 404", ""),
    (404, b"\xff", ServerRefused, "refused", "HTTP 404", ""),
    (404, b"[]", ServerRefused, "refused", "HTTP 404", ""),
    (404, b'{"error":7,"message":["m"],"hint":null}', ServerRefused, "refused", "HTTP 404", ""),
    (404, b'{"error":"","message":""}', ServerRefused, "refused", "HTTP 404", ""),
    (499, b"{}", ServerRefused, "refused", "HTTP 499", ""),
    (500, b'{"error":"server_error","error_description":"d"}', Unavailable, "server_error", "d", ""),
    (503, b'{"error":"recovery","message":"m"}', Unavailable, "recovery", "m", ""),
]


@pytest.mark.parametrize(("status", "content", "kind", "code", "message", "hint"), REFUSALS)
def test_each_form_of_a_refusal_is_parsed_into_code_message_and_hint(
    status: int, content: bytes, kind: type[Refused], code: str, message: str, hint: str
) -> None:
    refusal = parse_refusal(status, content, kind=ServerRefused)
    assert type(refusal) is kind
    assert (refusal.code, refusal.message, refusal.hint) == (code, message, hint)


@pytest.mark.parametrize(("length", "is_cut"), [(MAX_TEXT - 1, False), (MAX_TEXT, False), (MAX_TEXT + 1, True)])
def test_the_message_and_code_of_a_refusal_have_a_maximum_length(length: int, is_cut: bool) -> None:
    body = b'{"error":"%s","message":"%s"}' % (b"c" * length, b"m" * length)
    refusal = parse_refusal(400, body, kind=TokenRefused)
    assert (len(refusal.message) < length) is is_cut
    assert len(refusal.code) == MAX_CODE


def test_a_response_that_is_nested_too_deep_is_read_as_an_empty_object() -> None:
    assert read_object(b'{"a":' * 100_000) == {}
