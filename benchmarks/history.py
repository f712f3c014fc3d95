"""The cost of origins and history in a decision, in this process: microseconds of CPU, the median of rounds.

The call sends a mail: an argument with a kind, and a text. `remembered` is a task whose person said what it is for,
at a guard;
`looked at` is a set with four policies about what happened before, of which two look; `not looked at` the same for a
call that none of them is about. The history has 20 tools, 4 data classes and 40 recipients. It exits with an error
where history adds more than 8 microseconds; for both together 15 are wanted.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial

from harness.principals import make_principal
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.access import DecisionInputs, Facts, Policies, Principal, Protected, decide, past_of, resolve
from ostiary.provenance import origins
from ostiary.provenance.history import NOTHING, Done, PriorHistory, after
from ostiary.provenance.intent import Intent
from ostiaryd.policy.model import starter_files
from ostiaryd.policy.model.lower import lower

ROUNDS, CALLS, MOST_US = 25, 2000, 8.0
NOW = 1_800_000_000_000_000
URI = "https://mail.example/mcp"
CATALOGUE = Catalogue.parse(
    b"""{"resource": "mail", "tools": [
        {"name": "send", "effect": "send", "data_classes": ["internal"], "kinds": {"to": "address", "text": "text"},
         "arguments": {"properties": {"to": {"type": "string"}, "text": {"type": "string"}}}},
        {"name": "read", "effect": "read", "arguments": {"properties": {"to": {"type": "string"}}}}]}"""
)
CALL = 'principal is Agent, action == Action::"call", resource is Tool'
RULES = f"""
@id("stay") forbid ({CALL})
when {{ resource.effect != "read" && context.history.read_classes.contains("personal") }};
@id("five") forbid ({CALL})
when {{ resource.effect == "send" && context.history.recipients + context.history.new_recipients > 100 }};
@id("own") forbid ({CALL})
when {{ resource.effect == "destroy" }} unless {{ context.history.created.contains("id") }};
@id("outside") forbid ({CALL}) when {{ resource.effect == "administer" && context.history.outside }};
"""
ARGUMENTS = {"to": "ann@example.org", "text": "The figures for March are in. See https://example.org/figures for all."}


principal = partial(make_principal, aud=URI, exp=NOW // 1_000_000 + 60, scope="mail:read mail:write")


def past() -> PriorHistory:
    history = NOTHING
    for number in range(40):
        value = number.to_bytes(8, "big")
        done = Done(f"mail/tool_{number % 20}", 2, (f"class-{number % 4}",), False, (value,))
        history = after(history, done)
    return PriorHistory(b"k" * 32, history, history, 40, 0)


def measure(
    tool: str, who: Principal, facts: Facts, memory: origins.Memory | None, before: PriorHistory | None
) -> float:
    """Microseconds per decision, what is remembered of the call included."""
    ready = facts.resource.tools[tool]
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        for _ in range(CALLS):
            happened = None if before is None else past_of(before, ready, ARGUMENTS)
            made = decide(resolve(who, tool, ARGUMENTS, facts, NOW), DecisionInputs(memory, happened))
        rounds.append((time.process_time_ns() - begin) / CALLS / 1000)
        assert made.allowed, made
    return statistics.median(rounds)


def main() -> None:
    resource = Protected(name="mail", uri=URI, segment="default", catalogue=CATALOGUE)
    plain = Facts(resource, Policies("plain", starter_files().ir))
    usual = "".join(text for name, text in starter_files().files.items() if name.endswith(".cedar"))
    looks = Facts(resource, Policies("looks", lower(usual + RULES)))
    seed = Intent(
        words="Tell ann@example.org about March, see https://example.org/figures", own={"mail": "bob@example.org"}
    )
    memory, before = origins.with_marks(origins.remember(b"k" * 32, seed)), past()
    remembering = principal(memory="tk_1")
    rows = {
        "as it was": measure("send", principal(), plain, None, None),
        "remembered": measure("send", remembering, plain, memory, None),
        "looked at": measure("send", principal(), looks, None, before),
        "remembered and looked at": measure("send", remembering, looks, memory, before),
        "a read, as it was": measure("read", principal(), plain, None, None),
        "a read, not looked at": measure("read", principal(), looks, None, before),
    }
    print("microseconds a decision")
    for name, spent in rows.items():
        print(f"{name:26} {spent:6.2f}")
    print(f"{'both together add':26} {rows['remembered and looked at'] - rows['as it was']:6.2f}   (15 wanted)")
    added = rows["looked at"] - rows["as it was"]
    print(f"{'history adds':26} {added:6.2f}   (at most {MOST_US:g})")
    if added > MOST_US:
        sys.exit("history adds too much")


if __name__ == "__main__":
    main()
