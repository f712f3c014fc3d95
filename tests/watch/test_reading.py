"""The entries that become events, and the fields of an event."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.provenance.noticing import Event, Noticed
from ostiaryd.ledger.model import Entry, Result, encode_entry, reason
from ostiaryd.watch.model import JUDGE, FindingJudgement, Reading, ToolSeen
from ostiaryd.watch.model.reading import MAX_PENDING, MAX_SHAPE, shape

URI = "https://files.example"
TOOLS = {(URI, "files/read"): ToolSeen("read", ("personal",), canary=True)}


class Reader:
    """Reads entries, each with the number after the one before."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, str]] = []
        self.number = -1
        self.reading = Reading(
            tool_of=lambda uri, tool: TOOLS.get((uri, tool), ToolSeen()),
            model_of=lambda agent: f"model of {agent}",
            changed=lambda action, object: self.changed.append((action, object)),
        )

    def read(self, action: str, *, at: int = 1000, **more: Any) -> Event | FindingJudgement | None:
        self.number += 1
        return self.reading.read(self.number, encode_entry(Entry(at=at, action=action, **more)))

    def event(self, action: str, **more: Any) -> Event:
        made = self.read(action, **more)
        assert isinstance(made, Event)
        return made


def call(**more: Any) -> dict[str, Any]:
    """Return the fields of the entry of a reported call."""
    detail = {"spool": "s", "number": 1, "at": 1000} | more.pop("detail", {})
    return {"agent": "ag_1", "resource": URI, "reporter": "rs_1", "tool": "files/read", "detail": detail} | more


def test_the_event_of_a_call_has_every_field_of_its_entry_and_catalogue() -> None:
    noticed = Noticed(detector="odd", points=40, says="it is odd")
    made = Reader().event(
        "tool.call",
        **call(
            outcome="deny",
            owner="pe_1",
            task="tk_1",
            key="thumb",
            reasons=[reason("outside_task", "words")],
            result=Result("ok", 700, 3),
            arguments={"path": "/secret", "limit": 3},
            detail={
                "actors": ["ag_2"],
                "origins": {"origin": {"path": "outside", "limit": "user"}, "origin_worst": "outside"},
                "noticed": [noticed],
                "verdict": "deny",
                "watched": [],
            },
        ),
    )
    assert made == Event(
        at=1000,
        action="tool.call",
        outcome="deny",
        agent="ag_1",
        task="tk_1",
        owner="pe_1",
        resource=URI,
        tool="files/read",
        effect="read",
        canary=True,
        classes=("personal",),
        origins=(("limit", "user"), ("path", "outside")),
        worst="outside",
        shape="limit:int path:str",
        reasons=("outside_task",),
        bytes=700,
        records=3,
        key="thumb",
        actors=("ag_2",),
        reporter=URI,
        model="model of ag_1",
        noticed=(noticed,),
        number=0,
    )


def test_the_place_of_an_event_is_the_place_of_its_network() -> None:
    reading = Reading(
        tool_of=lambda uri, tool: ToolSeen(), model_of=lambda agent: "", place_of={"10.0.0.0/24": (50.0, 8.0)}.get
    )
    for network, place in (("10.0.0.0/24", (50.0, 8.0)), ("10.0.1.0/24", None), (None, None)):
        made = reading.read(0, encode_entry(Entry(at=1, action="token.issue", agent="ag_1", network=network)))
        assert isinstance(made, Event)
        assert made.place == place


@pytest.mark.parametrize(("detail", "is_asked"), [({}, False), ({"approval": "ap_1"}, True)])
def test_the_event_of_a_call_that_a_person_decides_is_marked(detail: dict[str, Any], is_asked: bool) -> None:
    assert Reader().event("tool.call", **call(outcome="deny", detail=detail)).is_asked is is_asked


def test_no_value_of_an_argument_is_in_an_event() -> None:
    made = Reader().event("tool.call", **call(arguments={"path": "/secret", "text": "do not tell"}))
    assert "secret" not in repr(made)
    assert "do not tell" not in repr(made)


def test_a_later_result_is_an_event_of_the_agent_that_made_the_call() -> None:
    reader = Reader()
    reader.event("tool.call", **call(outcome="allow"))
    result: dict[str, Any] = {"resource": URI, "reporter": "rs_1", "result": Result("ok", 9000, 2)}
    made = reader.event("tool.result", at=2000, **result, detail={"spool": "s", "number": 2, "call": 1})
    assert (made.action, made.agent, made.tool, made.bytes, made.records) == (
        "tool.result",
        "ag_1",
        "files/read",
        9000,
        2,
    )
    assert (made.at, made.number, made.canary) == (2000, 1, False)
    again = reader.read("tool.result", **result, detail={"spool": "s", "number": 3, "call": 1})
    assert again is None, "a call has one result"
    other = reader.read("tool.result", **result, detail={"spool": "other", "number": 2, "call": 1})
    assert other is None, "a result of a call that nobody knows"


def test_calls_without_results_fill_a_limited_memory() -> None:
    reader = Reader()
    for number in range(MAX_PENDING + 10):
        reader.event("tool.call", **call(outcome="allow", detail={"number": number}))
    assert len(reader.reading._pending) == MAX_PENDING


def test_event_time_never_goes_back_and_a_late_report_states_its_delay() -> None:
    reader = Reader()
    first = reader.event("tool.call", at=5000, **call(detail={"at": 2000}))
    assert (first.at, first.late) == (5000, 3000)
    second = reader.event("tool.call", at=4000, **call(detail={"at": 9000}))
    assert (second.at, second.late) == (5000, 0), "a guard whose clock is ahead"


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("watch.find", {"agent": "ag_1"}),
        ("watch.restart", {}),
        ("incident.open", {"agent": "ag_1"}),
        ("respond.limited", {"agent": "ag_1"}),
        ("server.doctor", {"agent": "ag_1"}),
        ("cert.warn", {"agent": "ag_1"}),
        ("approval.ask", {"agent": "ag_1", "tool": "files/read", "reporter": "rs_1", "network": "192.0.2.0/24"}),
        ("approval.ask", {"agent": "ag_1", "task": "tk_1", "key": "that of an administrator"}),
        ("approval.approve", {"agent": "ag_1", "tool": "files/read", "person": "pe_1", "network": "198.51.100.0/24"}),
        ("approval.deny", {"agent": "ag_1", "tool": "files/read", "person": "pe_1", "key": "thumb"}),
        ("approval.spend", {"agent": "ag_1", "tool": "files/read", "reporter": "rs_1"}),
        ("task.expire", {"agent": "ag_1"}),
        ("agent.create", {"person": "pe_1"}),
    ],
)
def test_an_entry_that_is_not_an_act_of_an_agent_is_not_an_event(action: str, more: dict[str, Any]) -> None:
    assert Reader().read(action, **more) is None


@pytest.mark.parametrize(
    "action",
    [
        "token.issue",
        "token.exchange",
        "task.start",
        "agent.suspend",
        "decide.batch",
        "elevation.request",
        "approval.ask",
    ],
)
def test_a_refused_act_of_an_agent_is_an_event(action: str) -> None:
    made = Reader().event(action, agent="ag_1", outcome="refused", reasons=[reason("no", "it must not")])
    assert (made.action, made.agent, made.outcome, made.reasons) == (action, "ag_1", "refused", ("no",))


def test_a_gap_in_the_reports_of_a_guard_is_an_event_without_an_agent() -> None:
    made = Reader().event(
        "report.gap", resource=URI, reporter="rs_1", outcome="error", detail={"spool": "s", "first": 3}
    )
    assert (made.agent, made.resource, made.reporter, made.model) == ("", URI, URI, "")


def test_a_change_of_an_agent_or_resource_causes_a_new_lookup() -> None:
    reader = Reader()
    reader.read("agent.change", object="ag_7", person="pe_1")
    reader.read("resource.set_catalogue", object="rs_1", person="pe_1")
    assert reader.changed == [("agent.change", "ag_7"), ("resource.set_catalogue", "rs_1")]


def test_the_judgement_of_a_finding_is_read_from_the_ledger_unless_refused() -> None:
    said = {"detectors": ["canary"], "is_real": True}
    assert Reader().read(JUDGE, agent="ag_1", person="pe_1", detail=said) == FindingJudgement(
        "ag_1", ("canary",), True, 0
    )
    assert Reader().read(JUDGE, agent="ag_1", detail=said, outcome="refused") is None


@pytest.mark.parametrize(
    "detail",
    [
        {"spool": 7},
        {"noticed": [{"detector": "Canary", "points": 40, "says": "x"}]},
        {"noticed": [{"detector": "a", "points": 101, "says": "x"}]},
        {"actors": "ag_2"},
    ],
)
def test_malformed_details_of_a_call_are_ignored(detail: dict[str, Any]) -> None:
    made = Reader().event("tool.call", **call(detail=detail))
    assert (made.agent, made.noticed, made.actors) == ("ag_1", (), ())


def test_an_unreadable_entry_does_not_block_other_entries() -> None:
    reader = Reader()
    assert reader.reading.read(0, b'{"at": "never"}') is None
    assert reader.reading.failed.startswith("entry 0: Expected `int`")
    assert reader.event("token.issue", agent="ag_1").agent == "ag_1"


def test_the_shape_of_arguments_has_a_maximum_length() -> None:
    assert shape({"b": [1], "a": {"x": 1}, "c": None, "d": True}) == "a:dict b:list c:NoneType d:bool"
    assert len(shape({f"argument_{n}": n for n in range(1000)})) == MAX_SHAPE
