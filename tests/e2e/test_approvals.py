"""A call at a guard of a real server needs an approval, a person approves, and the call is allowed once."""

from __future__ import annotations

from pathlib import Path

from tests.support.payment_fixtures import CALL, People, codes, live_server, people

__all__ = ["live_server", "people"]


def test_an_approval_of_a_call_is_requested_granted_and_used_once(people: People, tmp_path: Path) -> None:
    alice = people.person()
    with people.guard(tmp_path) as (guard, who):
        asked = guard.decide(who, *CALL).decision
        assert (asked.allowed, codes(asked), asked.policies) == (False, ["approval_needed"], ("large",))
        assert asked.reasons[0].message == "payments over 100"
        again = guard.decide(who, *CALL).decision
        assert (again.approval, codes(again)) == (asked.approval, ["approval_needed"])

        shown = people.live_server.api("GET", f"/approvals/{asked.approval}")
        assert shown["arguments"] == {"amount": 500, "to": "ann", "note": "rent"}
        assert (shown["hidden"], shown["outgoing"], shown["times"]) == (["pin"], {"note": "rent"}, 2)
        assert shown["reasons"] == [{"policy": "large", "message": "payments over 100"}]

        status, said = people.answer(alice, asked.approval)
        assert (status, said["state"]) == (200, "approved"), said
        spent = guard.decide(who, *CALL).decision
        assert (spent.allowed, spent.approval) == (True, asked.approval)
        after = guard.decide(who, *CALL).decision
        assert (after.allowed, codes(after)) == (False, ["approval_spent"])
        people.called(4)
    assert [(one["action"], one.get("outcome", "ok")) for one in people.about(asked.approval)] == [
        ("approval.ask", "ok"),
        ("approval.again", "ok"),
        ("approval.approve", "ok"),
        ("approval.spend", "ok"),
        ("approval.ask", "refused"),
        ("tool.call", "deny"),
        ("tool.call", "deny"),
        ("tool.call", "allow"),
    ]
