"""The review of a proposed catalogue by the owner of the resource: questions about each tool, their order, and the
catalogue that results from the answers.

`ostiary.catalogue_advisor.reading` proposes facts about each tool. Until the owner confirms the facts, a guard judges
each value by its form and treats every result of the tool as untrusted, so people are asked about more calls. A review
asks the owner at most MAX_QUESTIONS about each tool, first the questions whose answers save the most approvals. Every
question has a suggested answer. The answers are stored in the tool (effect, `outside`, kinds). The tool is `confirmed`
until its definition changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET
from msgspec.structs import replace

from ostiary.authorization.catalogue import METHODS, Catalogue, Effect, Kind, Tool
from ostiary.authorization.catalogue.kind import KINDS
from ostiary.catalogue_advisor.reading import (
    A_NUMBER,
    AGREED,
    UNKNOWN,
    ReadingLine,
    explain,
    is_of_record,
    kinds_for,
    text_arguments,
)
from ostiary.protocol.errors import Invalid

MAX_QUESTIONS = 3
"""maximum number of questions about one tool"""
YES, NO, NONE = "yes", "no", "none"
UNSURE = "unsure"
"""the answer of an owner who cannot state the kind of an argument: each value is judged by its form"""
EFFECTS = tuple(effect.value for effect in Effect)
UNSTATED = "its kind is not stated"
_WEIGHTS: Mapping[Kind | None, int] = {Kind.TEXT: 50, Kind.TIME: 50}
ARGUMENTS = (*(kind.value for kind in Kind), NONE, UNSURE)


@dataclass(frozen=True, slots=True)
class Flow:
    """The recorded source of an argument's values: a field in earlier output of another tool. `tasks`: number of tasks
    in which a value of the argument came from this field.
    """

    source_tool: str
    source_field: str
    tasks: int


@dataclass(frozen=True, slots=True)
class ToolUsage:
    """The number of calls of a tool, and the number of agents that called the tool."""

    calls: int = 0
    agents: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a tool. `member` is the member that the answer sets: `effect`, `outside`, or `kinds.`
    with the path of an argument.
    """

    tool: str
    member: str
    text: str
    why: str
    choices: tuple[str, ...]
    suggestion: str
    weight: int
    """importance of the answer, relative to other questions about the same tool; only the order counts"""


@dataclass(frozen=True, slots=True)
class ToolReview:
    tool: Tool
    lines: tuple[ReadingLine, ...]
    """proposed facts of the tool, with reasons"""
    usage: ToolUsage
    flows: Mapping[str, Flow]
    """recorded source of the values, by argument"""
    questions: tuple[Question, ...] = field(default=())


def review(
    catalogue: Catalogue,
    *,
    usage: Mapping[str, ToolUsage] | None = None,
    flows: Mapping[str, Mapping[str, Flow]] | None = None,
) -> list[ToolReview]:
    """Return a review of each tool that is not confirmed; the tool with the most calls is first."""
    used, flowing = usage or {}, flows or {}
    reviews = [
        _review(tool, used.get(name, ToolUsage()), flowing.get(name, {}))
        for name, tool in catalogue.tools.items()
        if not tool.confirmed and name not in METHODS
    ]
    return sorted(reviews, key=lambda one: (-one.usage.calls, one.tool.effect is Effect.READ, one.tool.name))


def confirm(tool: Tool, answers: Mapping[str, str] | None = None, *, flows: Mapping[str, Flow] | None = None) -> Tool:
    """Return the tool with the owner's answers, marked as confirmed. `answers` maps the member of a question to the
    answer; a question without an answer takes its suggestion. If the owner states that a proposed effect is a read, or
    the reverse, the kinds are read again, because a read sends nothing to a recipient. Raises Invalid for an answer to
    another question, or an answer that is no choice.
    """
    questions = _review(tool, ToolUsage(), flows or {}).questions
    stated = dict(answers or {})
    decided = {question.member: question.suggestion for question in questions} | stated
    kinds, paths = dict(tool.kinds), set(text_arguments(tool.arguments)) | set(tool.kinds)
    effect, outside = tool.effect, tool.outside
    is_read = decided.get("effect", effect) == Effect.READ
    if is_read is not (effect is Effect.READ):
        kinds = kinds_for(tool, Effect.READ if is_read else Effect.CHANGE)
        decided = {one: decided[one] for one in decided if one in stated or not one.startswith("kinds.")}
    for member, answer in decided.items():
        group, _, path = member.partition(".")
        if member == "effect":
            effect = Effect(_checked(tool, member, answer, EFFECTS))
        elif member == "outside":
            outside = _checked(tool, member, answer, (YES, NO)) == YES
        elif group == "kinds" and path in paths:
            word = _checked(tool, member, answer, (*KINDS, NONE, UNSURE))
            kinds |= {path: word}
            if word == UNSURE:
                del kinds[path]
        else:
            raise Invalid(
                f"`{tool.name}` has no member `{member[:128]}`",
                hint="members are `effect`, `outside`, and `kinds.` with the path of an argument",
            )
    return replace(tool, effect=effect, outside=outside, kinds=kinds, confirmed=True)


def confirm_all(
    catalogue: Catalogue,
    answers: Mapping[str, Mapping[str, str]],
    *,
    flows: Mapping[str, Mapping[str, Flow]] | None = None,
) -> Catalogue:
    """Return the catalogue in which the tools that `answers` names are confirmed. Raises Invalid for an unknown
    tool.
    """
    flowing = flows or {}
    if unknown := sorted(answers.keys() - catalogue.tools.keys()):
        raise Invalid(
            f"the catalogue has no tool `{unknown[0][:128]}`", hint="give the answers under the names of tools"
        )
    tools = [
        confirm(tool, answers[name], flows=flowing.get(name)) if name in answers else tool
        for name, tool in catalogue.tools.items()
    ]
    return Catalogue.of(catalogue.resource, tools, catalogue.data_classes)


def _checked(tool: Tool, member: str, answer: str, choices: Sequence[str]) -> str:
    if answer not in choices:
        raise Invalid(
            f"`{answer[:64]}` is not an answer for `{member}` of `{tool.name}`", hint=f"use one of {', '.join(choices)}"
        )
    return answer


def _review(tool: Tool, usage: ToolUsage, flows: Mapping[str, Flow]) -> ToolReview:
    lines = explain(tool)
    why = {line.member: line.why for line in lines}
    questions = sorted(_questions(tool, why, flows), key=lambda question: -question.weight)
    return ToolReview(tool, lines, usage, flows, tuple(questions[:MAX_QUESTIONS]))


def _questions(tool: Tool, why: Mapping[str, str], flows: Mapping[str, Flow]) -> Iterator[Question]:
    """Yield the questions about a tool. An effect on which name and description agree needs no question. An
    argument whose name says that the argument is an identifier needs no question either.
    """
    name, of_effect = tool.name, why["effect"]
    if of_effect != AGREED:
        yield Question(
            name,
            "effect",
            f"Does `{name}` change anything, or only read?",
            of_effect,
            EFFECTS,
            tool.effect.value,
            90 if of_effect == UNKNOWN else 55,
        )
    # the owner may have stated this for an earlier definition
    was_stated = tool.outside is False and tool.definition != ""
    if (tool.outside is UNSET and (tool.effect is Effect.READ or of_effect == UNKNOWN)) or was_stated:
        is_record = tool.effect is Effect.READ and is_of_record(name)
        yield Question(
            name,
            "outside",
            f"Can others write into what `{name}` returns (mails, pages, comments, shared files)?",
            "the catalogue says that they cannot"
            if was_stated
            else "the name of the tool refers to records of its own system"
            if is_record
            else "the catalogue does not say",
            (YES, NO),
            NO if is_record or was_stated else YES,
            95 if was_stated else 60,
        )
    if tool.effect is Effect.READ:
        return
    texts = text_arguments(tool.arguments)
    for path in (*texts, *(path for path in tool.kinds if path not in texts)):
        kind, flow, reason = tool.argument_kinds.get(path), flows.get(path), why.get(f"kinds.{path}", UNSTATED)
        weight = _WEIGHTS.get(kind, 80 if kind is None else 70 if reason == A_NUMBER else 0)
        suggestion = UNSURE if kind is None else kind.value
        if flow is not None and kind in (None, Kind.TEXT, Kind.AMOUNT):
            source = f"`{flow.source_field}` of `{flow.source_tool}`"
            reason = f"the values of the argument came from {source} in {flow.tasks} tasks"
            suggestion, weight = Kind.OBJECT.value, 85
        if weight:
            yield Question(
                name,
                f"kinds.{path}",
                f"Is `{path}` of `{name}` a recipient, an object, an amount, or text?",
                reason,
                ARGUMENTS,
                suggestion,
                weight,
            )
