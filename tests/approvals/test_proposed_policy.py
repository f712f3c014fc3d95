"""Proposed policies: the set allows exactly the approved calls, and still requires approval for all others."""

from __future__ import annotations

from importlib.resources import files as package_files
from typing import Any

import pytest

from ostiary.catalogue_advisor.suggest import exempt
from ostiary.catalogue_advisor.suggest.agreed import FILE, LEFT_OUT
from ostiaryd.policy.model.load import load
from ostiaryd.policy.model.safeguards import extend, read_left_out, safeguards

STARTER = (package_files("ostiaryd.policy") / "starter" / "starter.cedar").read_text("utf-8")
LARGE = """// @id("large") forbid;
@id("small") permit (principal, action, resource) when { false && "@id(\\"large\\");" == "" };
@id("large") @ask("person")
forbid (principal, action == Action::"call", resource) when { context has origin_worst }; // the end;
"""
OWN = {"starter.cedar": STARTER, "large.cedar": LARGE}
PAY: dict[str, Any] = {
    "agent": "bot",
    "agent_id": "ag_1",
    "tool": "bank/pay",
    "named": {"to": "ann", "my-ref": 7, "is": True},
    "amounts": {"amount": "500", "fee": "2.5"},
    "types": {"amount": "integer", "fee": "number"},
    "others": ["cc"],
    "is_closed": True,
    "policies": ["large", "said-or-recorded"],
    "occasions": 5,
    "approvals": ["ap_1", "ap_2"],
    "words": "`bot` pays ann",
}
CALL = 'to = "ann", my-ref = 7, is = true, amount = 500, fee = 2.5, note = "any"'


def case(expect: str, arguments: str = CALL, *, agent: str = "ag_1", tool: str = "bank/pay", more: str = "") -> str:
    return f"""[[case]]
name = "a call"
subject = {{ type = "agent", id = "{agent}", properties = {{ segment = "default" }} }}
action = "call"
resource = {{ type = "tool", id = "{tool}", properties = {{ segment = "default", effect = "pay" }} }}
context = {{ origin_worst = "nowhere", arguments = {{ {arguments} }}{more} }}
expect = "{expect}"
"""


def holds(files: dict[str, str], text: str) -> None:
    files = files | {"a.test.toml": text}
    load(extend(files, read_left_out(files)))


def test_a_proposed_policy_allows_the_approved_calls_and_no_others() -> None:
    made = exempt([PAY], OWN, safeguards())
    assert (sorted(made.files), made.left_out) == ([FILE, LEFT_OUT, "large.cedar"], [])
    assert "5 occasions: ap_1, ap_2" in made.files[FILE]
    holds(OWN, case("ask"))
    files = OWN | made.files
    holds(files, case("allow"))
    holds(files, case("allow", CALL.replace("500", "499").replace("2.5", "0.5")))
    for other in (
        case("ask", agent="ag_2"),
        case("ask", tool="bank/send"),
        case("ask", CALL.replace('"ann"', '"eve"')),
        case("ask", CALL.replace("500", "501")),
        case("ask", CALL.replace("500", "-1")),
        case("ask", CALL.replace("2.5", "2.6")),
        case("ask", CALL.replace("is = true, ", "")),
        case("ask", CALL + ', cc = "eve"'),
        case("ask", more=', amount_worst = "outside"'),
    ):
        holds(files, other)


def test_a_second_proposal_is_added_to_the_first() -> None:
    first = OWN | exempt([PAY], OWN, safeguards()).files
    left = {id: text for id, text in safeguards().items() if id != "said-or-recorded"}
    bob = PAY | {"named": PAY["named"] | {"to": "bob"}, "policies": ["large", "said-or-recorded-agreed"]}
    eve = PAY | {"named": PAY["named"] | {"to": "eve"}, "policies": ["amounts-recorded"]}
    files = first | exempt([bob, eve], first, left).files
    holds(files, case("allow") + case("allow", CALL.replace("ann", "bob")).replace("a call", "another"))
    holds(files, case("ask", CALL.replace("ann", "eve"), more=', amount_worst = "outside"'))
    assert set(read_left_out(files)) == {"amounts-recorded", "said-or-recorded"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"is_closed": False}, "additionalProperties"),
        ({"named": {"to": ["ann"]}}, "cannot compare"),
        ({"named": {"to": "an\u202en"}}, "cannot compare"),
        ({"named": {"t\u00f6": "ann"}}, "cannot compare"),
        ({"types": {"amount": "string", "fee": "number"}}, "cannot compare"),
        ({"amounts": {"amount": "2.5"}}, "cannot compare"),
        ({"others": ["t\u00f6"]}, "cannot compare"),
        ({"policies": ["large", "gone"]}, "no file has the policy 'gone'"),
    ],
)
def test_a_proposal_that_no_policy_can_express_is_left_out_with_the_reason(changed: dict[str, Any], why: str) -> None:
    made = exempt([PAY | changed], OWN, safeguards())
    assert made.files == {}
    [(_, said)] = made.left_out
    assert why in said


def test_a_value_cannot_end_a_string_or_line_of_the_policy() -> None:
    named = {"to": 'ann" || true || "', "my-ref": "// x", "is": "\\"}
    made = exempt([PAY | {"named": named}], OWN, safeguards())
    files = OWN | made.files
    said = CALL.replace('"ann"', "'ann\" || true || \"'").replace("= 7", '= "// x"').replace("true,", "'\\',")
    holds(files, case("allow", said))
    holds(files, case("ask"))
    assert exempt([PAY | {"named": {"to": "a\nb"}}], OWN, safeguards()).files == {}
