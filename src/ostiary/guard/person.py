"""A call that a person must say yes to, as a guard asks about it and hears of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from ostiary.decision import access, approval
from ostiary.protocol import canonical
from ostiary.protocol.errors import Refused
from ostiary.provenance.extent import warnings_of
from ostiary.provenance.origins import Memory, foreign
from ostiary.provenance.origins import shown as shown_origins


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that a person must say yes to: `ask` makes the question of a number that is thrown. Raises Malformed."""

    policies: tuple[str, ...]
    by: tuple[str, str]
    """agent and task"""
    ask: Callable[[str], approval.Ask]

    @property
    def same(self) -> str:
        """By which the same call is known when it is made again, under a newer token too. Raises Malformed."""
        ask = self.ask("")
        return canonical.digest([*self.by, ask.policies, ask.tool, ask.arguments, ask.secrets], floats=True)


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of it: the server's answer, or why there is none."""

    policies: tuple[str, ...]
    answer: approval.Answer | None = None
    refusal: Refused | None = None
    number: str = ""
    """under which the yes was spent; empty where none was"""

    @property
    def approved(self) -> tuple[str, ...]:
        """The policies that were told yes, which was spent by this call."""
        return self.policies if self.answer is not None and self.answer.state == "spent" else ()

    def told(self, decision: access.Decision) -> access.Decision:
        """The decision, with what the agent must know of it."""
        if self.refusal is not None:
            why = self.refusal
            return structs.replace(decision, reasons=(access.Reason(why.code, why.message, why.hint),), asks=None)
        assert self.answer is not None
        id = self.answer.approval
        if not decision.asks:
            return structs.replace(decision, approval=id)
        reasons = tuple(structs.replace(one, hint=one.hint or f"a person is asked: {id}") for one in decision.reasons)
        return structs.replace(decision, reasons=reasons, approval=id)


def wanted(
    principal: access.Principal,
    tool: str,
    arguments: Mapping[str, Any],
    decision: access.Decision,
    facts: access.Facts,
    memory: Memory | None,
) -> Wanted:
    """What to ask a person about a call that nothing else denies."""
    claims, ready = principal.claims, facts.resource.tools[tool]
    origins, warnings = shown_origins(decision.beside), warnings_of(decision.beside)

    def ask(number: str) -> approval.Ask:
        shown, hidden = approval.part(arguments, ready.secrets, task=claims.task)
        others = {} if memory is None else foreign(memory, ready.tool, shown)
        return approval.Ask(
            call=number, token=claims.jti, policy=decision.policy_hash, policies=list(decision.policies),
            tool=tool, arguments=shown, secrets=hidden, origins=origins, foreign=others, warnings=warnings,
        )  # fmt: skip

    return Wanted(decision.policies, (claims.client_id, claims.task), ask)
