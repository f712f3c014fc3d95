"""The cost of the origins of values, in microseconds of processor time: `python -m benchmarks.origins`.

decide    a decision as it was, and under a task that remembers: beside it, what the origins of its arguments add
observe   10 KB of output of which nothing is known yet: prose, and records in several forms
memory    the largest that a task can have, and what a guard then adds to a decision
sessions  what origins, labels and slots add to the decisions of sessions (`benchmarks.contain.costs`)

Times are printed with their ratio to a keyed hash of one word, which is the same work on every machine. Enforced are
what can be counted: the bytes of a memory that was flooded, and that the person's words are still in it.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from hashlib import blake2s

from msgspec.structs import replace

from benchmarks.contain.__main__ import elsewhere
from benchmarks.decide import URI, principal
from ostiary.authorization.catalogue import Catalogue, Kind, Tool
from ostiary.decision.access import DecisionInputs, Facts, Principal, Protected, decide, resolve
from ostiary.provenance.intent import Endorsed, Intent
from ostiary.provenance.origins import (
    MAX_BYTES,
    Memory,
    Origin,
    add_parts,
    observe_output,
    of_value,
    pack,
    remember,
    with_marks,
)
from ostiaryd.policy.model import starter_files

KEY = bytes(range(32))
CATALOGUE = {
    "resource": "files",
    "tools": [
        {
            "name": "pay",
            "effect": "pay",
            "scope": "read",
            "kinds": {"to": "account", "amount": "amount", "when": "time", "note": "text"},
        },
        {"name": "fetch", "effect": "read", "kinds": {"path": "object"}},
        {"name": "record", "effect": "read", "open_world": False, "kinds": {"path": "object"}},
    ],
}
WORDS = "Pay Ann Lee 1,200.00 to DE89 3704 0044 0532 0130 00 on May 15th, and write to ann@example.org about it."
SAID = {"to": "DE89370400440532013000", "amount": 1200, "note": "Paid, as you asked. Write to ann@example.org"}
UNSAID = {"to": "FR7612345678901", "amount": 77, "note": "Paid, as you asked. Write to eve@example.org"}
LETTER = """Hello Ann,

congratulations on the new apartment! The documentation of the installation is attached, and the registration fee of
1,200.00 euros was transferred on May 15th. Please confirm that the appointment with the administration on Thursday is
still possible; otherwise we will have to find another date. See https://www.example.org/schedule/2026?week=22 for the
free slots.

Kind regards,
Your assistant
ann@example.org"""
_LETTERS, _dice = "abcdefghijklmnopqrstuvwxyz", random.Random(3)
LANGUAGE = ["".join(_dice.choices(_LETTERS, k=_dice.randint(2, 11))) for _ in range(1500)]
NOW = 1_800_000_000_000_000
ROUNDS = 15


def microseconds(work: Callable[[], object], count: int) -> float:
    """The median over rounds of the mean over calls."""
    means = []
    for _ in range(ROUNDS):
        started = time.process_time_ns()
        for _ in range(count):
            work()
        means.append((time.process_time_ns() - started) / count / 1000)
    return statistics.median(means)


def prose(dice: random.Random, size: int) -> str:
    """Words of a language of 1,500, one in three with something that is not a letter in it."""
    said = []
    length = 0
    while length < size:
        word = dice.choice(LANGUAGE)
        word += dice.choice(["", "", "", "", "", "", ",", ".", "@example.com", f" {dice.randint(1, 9999)}"])
        length += len(word) + 1
        said.append(word)
    return " ".join(said)[:size]


def records(dice: random.Random, size: int) -> str:
    """Contacts with a note each, as JSON."""
    rows: list[dict[str, object]] = []
    while len(json.dumps(rows)) < size:
        name = f"{dice.choice(LANGUAGE)} {dice.choice(LANGUAGE)}"
        row = {"id": len(rows), "name": name, "mail": f"{name.replace(' ', '.')}@example.com"}
        rows.append(row | {"amount": round(dice.random() * 900, 2), "note": prose(dice, 60)})
    return json.dumps(rows)


def forms(dice: random.Random, size: int) -> dict[str, str]:
    """Outputs of `size` characters, by what they are. Names in letters have capitals, as those of people."""
    text = records(dice, size)
    rows = json.loads(text)
    lines = [
        f"{'- ' if at == 0 else '  '}{name}: {value}" for row in rows for at, (name, value) in enumerate(row.items())
    ]
    cells = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
    letters = [
        f"From: {row['mail']}\nSubject: Invoice {row['id']}\n\nDear {row['name'].title()},\n{row['note']}"
        for row in rows
    ]
    return {
        "prose": prose(dice, size),
        "JSON": text,
        "records as lines": "\n".join(lines),
        "records as a table": "\n".join(" | ".join(row) for row in cells),
        "letters": "\n---\n".join(letters),
    }


def flooded(dice: random.Random, tools: dict[str, Tool]) -> Memory:
    """A memory in which no origin has room."""
    endorsed = tuple(Endorsed("files/fetch", f"v{one}", (Kind.ACCOUNT, list(Kind)[one])) for one in range(2, 7))
    own = {f"own{number}": prose(dice, 500) for number in range(15)}
    memory = remember(KEY, Intent(words=WORDS + prose(dice, 12_000), own=own, endorsed=endorsed))
    for _ in range(16):
        for tool, path in (("fetch", "x"), ("fetch", f"v{dice.randint(2, 6)}"), ("record", "x"), ("record", "Ann")):
            output = prose(dice, 20_000)
            memory = add_parts(memory, observe_output(memory, f"files/{tool}", tools[tool], {"path": path}, output))
            assert len(pack(memory)) <= MAX_BYTES
    return memory


def main() -> int:
    dice = random.Random(7)
    catalogue = Catalogue.parse(json.dumps(CATALOGUE))
    tools = dict(catalogue.tools)
    facts = Facts(Protected(name="files", uri=URI, segment="default", catalogue=catalogue), starter_files().policies)
    who = principal()
    with_memory = Principal(replace(who.claims, memory="tk_1"))
    begun = with_marks(remember(KEY, Intent(words=WORDS)))
    full = flooded(dice, tools)
    assert of_value(full, Kind.ADDRESS, "ann@example.org") is Origin.PERSON
    print(f"a memory that was flooded has {len(pack(full)):,} bytes, at most {MAX_BYTES:,}")

    word = microseconds(lambda: blake2s(b"ann@example.org", digest_size=6, key=KEY).digest(), 20_000)
    print(f"{'a keyed hash of one word':<66} {word:8.2f} µs")

    def deciding(memory: Memory | None, arguments: dict[str, object]) -> float:
        asks = who if memory is None else with_memory

        def one() -> object:
            return decide(resolve(asks, "pay", arguments, facts, NOW), DecisionInputs(memory))

        return microseconds(one, 2000)

    def told(what: str, value: float) -> None:
        print(f"{what:<66} {value:8.2f} µs {value / word:8.1f} hashes")

    plain = deciding(None, SAID)
    told("a decision without a memory", plain)
    told("more: one argument that the person said", deciding(begun, {"to": SAID["to"]}) - plain)
    told("more: two that the person said", deciding(begun, {"to": SAID["to"], "amount": 1200}) - plain)
    told("more: the same, and a text with an address", deciding(begun, SAID) - plain)
    told("more: two from nowhere, and a text with an address", deciding(begun, UNSAID) - plain)
    labelled = with_marks(
        add_parts(begun, observe_output(begun, "files/record", tools["record"], {"path": "x"}, prose(dice, 10_240)))
    )
    told("more: a text with an address, with labels in play", deciding(labelled, SAID) - plain)
    letter = SAID | {"note": LETTER}
    told("more: a letter of 400 characters", deciding(begun, letter) - plain)
    told("more: a letter of 400 characters, with labels in play", deciding(labelled, letter) - plain)
    told("more: no text, with labels in play", deciding(labelled, {"to": SAID["to"], "amount": 1200}) - plain)
    told("more: the same with the largest memory", deciding(with_marks(full), UNSAID) - plain)
    for what, output in forms(dice, 10_240).items():
        for tool in ("fetch", "record"):

            def observing(tool: str = tool, output: str = output) -> object:
                return observe_output(begun, f"files/{tool}", tools[tool], {"path": "x"}, output)

            told(
                f"observe 10 KB of {what} of {'outside' if tool == 'fetch' else 'records'}", microseconds(observing, 20)
            )
    return elsewhere("benchmarks.contain.costs", [], recorded=False)


if __name__ == "__main__":
    sys.exit(main())
