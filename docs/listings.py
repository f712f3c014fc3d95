"""The reference pages that list what the program knows: commands, SDK, reason codes, ledger actions, glossary."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import get_args

import ostiary
from ostiary import agent, asgi
from ostiary.audit.entries import FAMILIES
from ostiary.authorization.assurance import INSUFFICIENT
from ostiary.authorization.catalogue.kind import Kind as ArgumentKind
from ostiary.authorization.catalogue.tool import Effect
from ostiary.cli import NAMES, app, load_help
from ostiary.cli.help_formatter import name_arguments
from ostiary.decision.access.policy_kinds import RESPONSES
from ostiary.decision.access.restrictions import RestrictionKind
from ostiary.mcp import protect
from ostiary.protocol.errors import Refused
from ostiary.protocol.secret_forms import TOO_LONG, SecretSent
from ostiary.provenance.origins.memory import Origin
from ostiaryd.approvals.model import ApprovalState
from ostiaryd.incidents.model.incidents import IncidentState
from ostiaryd.incidents.model.incidents import Verb as IncidentVerb
from ostiaryd.registry.model.agent import AgentState, RiskTier
from ostiaryd.registry.model.agent import Kind as AgentKind
from ostiaryd.registry.model.resource import Mode
from ostiaryd.tasks.model.task import TaskState

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).with_name("adr")
TERMS = Path(__file__).with_name("terms.toml")


def _values(kind: type[Enum]) -> tuple[str, ...]:
    return tuple(member.value if isinstance(member.value, str) else member.name.lower() for member in kind)


CLOSED: dict[str, tuple[str, ...]] = {
    "state of an agent": _values(AgentState),
    "kind of an agent": _values(AgentKind),
    "risk tier of an agent": _values(RiskTier),
    "mode of a resource": _values(Mode),
    "state of a task": _values(TaskState),
    "state of an approval": _values(ApprovalState),
    "state of an incident": _values(IncidentState),
    "effect of a tool": _values(Effect),
    "kind of an argument": _values(ArgumentKind),
    "origin of a value, the most trusted first": _values(Origin),
    "response, the mildest first": RESPONSES,
    "restriction": get_args(RestrictionKind),
}
"""Each closed set of words, as the code has it."""

REASONS = {
    "agent_not_active": "An agent in the delegation chain is pending, suspended, quarantined or decommissioned.",
    "approval_needed": "A policy asks a person before the call runs.",
    "denied": "The decision point denied the request and states no further reason.",
    "forbidden_by_policy": "A `forbid` policy matches.",
    "history_full": "A policy reads earlier calls, and the task, or the agent today and yesterday (UTC), made more of"
    " them than the history holds.",
    "history_unavailable": "A policy reads earlier calls of the task, and the server did not supply them in time.",
    INSUFFICIENT: "A policy demands a stronger or a newer proof of the token's holder (RFC 9470).",
    "key_revoked": "The key or the certificate to which the access token is bound is revoked.",
    "memory_unavailable": "The call needs the origins of its values, and the memory of the task is not available.",
    "narrowed": "A restriction (`narrow`) of an agent in the delegation chain allows only tools that read.",
    "no_permit": "No policy permits the call.",
    "outside_task": "The task does not cover the call: a scope or a bound is missing.",
    "policy_error": "The evaluation of an enforced policy failed; such an error denies the request.",
    SecretSent.code: "The arguments have a secret that a proxy put into a request of an agent in the delegation chain.",
    "stopped": "The kill switch stops the resource or everything, or one of these of an agent in the delegation chain:"
    " its task, its owner, its segment or its model. A stopped owner also stops the agents that act for this person.",
    "task_ended": "The task, or a task above it, has ended.",
    "throttled": "A restriction (`throttle`) of an agent in the delegation chain limits its calls per minute; the"
    " limit is reached.",
    TOO_LONG: "The arguments are too long to be searched for secrets that a proxy used for the agent.",
    "token_expired": "The access token has expired.",
    "token_revoked": "The access token is revoked, or its agent or an agent in its chain has a higher epoch than the"
    " token states.",
    "tool_changed": "The definition of the tool has changed since the owner accepted the definition.",
    "unknown_tool": "The catalogue of the resource does not have the tool.",
    "wrong_audience": "The access token is for another resource.",
}
"""The codes that the rules of a decision give, each with its meaning. A test finds each of these codes here, if the
source gives `Reason` a text or a constant. A decision that an error denies has the code of the error: `_refusals` and
`narrower_codes` list these codes.
"""

SHOWN_MESSAGES = 3


def commands() -> str:
    """Render every command with its arguments and options, from the program's own help."""
    for name in NAMES:
        load_help(name)
    arguments, sys.argv = sys.argv, ["ostiary"]  # the name of the program stands in the usage of some commands
    try:
        text = str(app.generate_docs(output_format="markdown"))
    finally:
        sys.argv = arguments
    body = text.split("\n", 1)[1].replace("\n## ", "\n### ").replace("\n# ", "\n## ")
    body = "\n".join(name_arguments(app, line) if line.startswith("ostiary ") else line for line in body.splitlines())
    return f"""# Commands

This page is for operators and developers. After reading this page, you can look up every command, argument and option.
The page is generated from the help of the program: `make docs`.
{body.rstrip()}
"""


def sdk() -> str:
    """Render the public names of `ostiary` with their docstrings."""
    classes = [(name, ostiary) for name in ostiary.__all__]
    classes += [(name, agent) for name in agent.__all__ if name not in ostiary.__all__]
    sections = [_class(getattr(home, name), home.__name__) for name, home in (*classes, ("GuardASGI", asgi))]
    sections.append(f"## protect\n\n`from ostiary.mcp import protect`\n\n{_entry('protect', protect)}")
    body = "\n\n".join(sections)
    return f"""# SDK

This page is for developers of agents and tool servers. After reading this page, you can look up every public class
of the SDK, its methods and their errors. The page is generated from the docstrings: `make docs`.

{body}
"""


def _class(kind: type, package: str) -> str:
    """Render a public class with its members. `package`: the package from which programs import the class."""
    entries = [_entry(kind.__name__, kind)]
    for name, member in inspect.getmembers(kind):
        home = getattr(inspect.unwrap(getattr(member, "__func__", member)), "__module__", "ostiary") or ""
        if (
            not name.startswith("_")
            and home.startswith("ostiary")
            and (inspect.isfunction(member) or inspect.ismethod(member) or _is_property(member))
        ):
            entries.append(_entry(name, member))
    return f"## {kind.__name__}\n\n`from {package} import {kind.__name__}`\n\n" + "\n\n".join(entries)


_ADDRESS = re.compile(r"<[^>]*>")
"""A default that is a function, which Python prints with its address."""


def _is_property(member: object) -> bool:
    return isinstance(member, property)


def _entry(name: str, member: object) -> str:
    """Render a name, its parameters and its docstring."""
    if isinstance(member, property):
        title = f"### `{name}`"
    else:
        signature = inspect.signature(member)  # type: ignore[arg-type]
        parameters = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in signature.parameters.values()
            if parameter.name not in {"self", "cls"}
        ]
        shown = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
        title = f"### `{name}{_ADDRESS.sub('...', str(shown))}`"
    text = inspect.getdoc(member) or "Undocumented."
    creation = vars(member).get("__init__") if isinstance(member, type) else None
    if creation is not None and creation.__doc__:
        text += f"\n\n{inspect.cleandoc(creation.__doc__)}"
    return f"{title}\n\n{text}"


def reasons() -> str:
    """Render the codes that rules of a decision give, and the codes of errors."""
    decisions = "\n".join(f"| `{code}` | {meaning} |" for code, meaning in sorted(REASONS.items()))
    meanings, messages = _refusals(), narrower_codes()
    refusals, narrower = (
        "\n".join(
            f"| `{code}` | {'<br>'.join((*meanings.get(code, ()), *messages.get(code, ())[:SHOWN_MESSAGES]))} |"
            for code in sorted(codes)
        )
        for codes in (meanings, messages.keys() - meanings.keys() - REASONS.keys())
    )
    return f"""# Reason codes

This page is for developers who handle denials, and for operators who read decisions. After reading this page, you can
look up the meaning of each code. Codes are stable; messages and hints may change. The page is generated: `make docs`.

A denied call carries one or more reasons, each with a `code`, a `message` and often a `hint`. A refused request carries
one error with the same members. If an error denies a call, the reason has the code of the error. A malformed argument,
a spent budget and an approval for another call are errors.

## Codes of rules

A rule of the decision gives these codes to a denied call.

| code | meaning |
| --- | --- |
{decisions}

## Codes of errors

An error refuses a request, or denies a call. If a specification defines the code, the meaning names the section. A row
has each meaning of its code, and the messages of single refusals that have the code too.

| code | meaning |
| --- | --- |
{refusals}

## Narrower codes of errors

If a caller can react to one cause of an error, this cause has a code of its own, in place of a code of the table
above. The message explains the code; … stands for a value. For a code with several
messages, a row shows at most {SHOWN_MESSAGES} of them. Codes with capital letters are problems of ACME (RFC 8555
section 6.7).

| code | message |
| --- | --- |
{narrower}
"""


def _refusals() -> dict[str, list[str]]:
    """Return the codes of all refusals that the program defines, with the first paragraphs of their docstrings."""
    for path in sorted((ROOT / "src").rglob("*.py")):  # whatever else this process has imported
        if "adapters" not in path.parts and re.search(r'^    code = "', path.read_text("utf-8"), re.MULTILINE):
            import_module(".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"))
    meanings: defaultdict[str, list[str]] = defaultdict(list)
    classes = [Refused]
    for kind in classes:
        classes += kind.__subclasses__()
        if "code" in vars(kind) and kind.__module__.startswith("ostiary"):
            first = " ".join((kind.__doc__ or "").split("\n\n", 1)[0].split())
            if first:
                meanings[kind.code].append(first.replace("|", "\\|"))
    return {code: sorted(texts) for code, texts in meanings.items()}


_COMPUTED = {
    **{f"agent_{state}": [f"the agent `…` is {state}"] for state in AgentState if state is not AgentState.ACTIVE},
    "agent_expired": ["the agent `…` is expired"],
    "alreadyRevoked": ["ACME: the certificate is revoked already"],
    "badPublicKey": ["ACME: the key is weak, known to be bad, or of a type that is not accepted"],
    "compound": ["ACME: identifiers of the order are refused for several reasons, which `subproblems` has"],
    "connection": ["ACME: the host of the challenge cannot be reached, or may not be visited"],
    "dns": ["ACME: the lookup for the challenge failed"],
    "person_left": ["`…` has left"],
    "person_suspended": ["`…` is suspended"],
    "secret_refused": ["the message of the server's Vault API"],
    "tls": ["ACME: the TLS handshake of the challenge failed"],
}
"""Codes that the source computes (`active_agent` of the registry, `Person.absence_code`) or whose message is that of
another error, with the text of their row.
"""


@cache
def narrower_codes() -> dict[str, list[str]]:
    """Return every code that the source gives to a single refusal, by the name `code` or by the place of the parameter
    `code`, with the messages of these refusals in the order of the alphabet. Values in a message are rendered as `…`.
    """
    trees = [[*ast.walk(ast.parse(path.read_text("utf-8")))] for path in sorted((ROOT / "src").rglob("*.py"))]
    places = {name: place for nodes in trees for name, place in _places(nodes)}
    messages: defaultdict[str, set[str]] = defaultdict(set, {code: {*texts} for code, texts in _COMPUTED.items()})
    for nodes in trees:
        assignments = sorted((one for one in nodes if isinstance(one, ast.Assign)), key=lambda one: one.lineno)
        for call in nodes:
            if isinstance(call, ast.Call) and (given := _code_and_message(call, places)):
                before = [one for one in assignments if one.lineno < call.lineno]
                text = (_message(given[1], before) or "…").replace("|", "\\|")
                for code in _codes(given[0], before):
                    messages[code].add(text)
    return {code: sorted(texts - {"…"}) for code, texts in messages.items()}


def _places(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yield the functions and classes whose parameters are a code and a message, with the place of the code."""
    for node in nodes:
        match node:
            case ast.ClassDef(name=name, body=body):
                functions = [one for one in body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
            case ast.FunctionDef(name=name) if name != "__init__":
                functions = [node]
            case _:
                continue
        for function in functions:
            names = [one.arg for one in function.args.args if one.arg != "self"]
            if "message" in names and "code" in names:
                yield name, names.index("code")


def _code_and_message(call: ast.Call, places: Mapping[str, int]) -> tuple[ast.expr, ast.expr] | None:
    """Return the expressions of the code and of the message in a call that creates a refusal; else None."""
    code = next((one.value for one in call.keywords if one.arg == "code"), None)
    if code is not None and call.args:
        return code, call.args[0]
    place = places.get(ast.unparse(call.func).rpartition(".")[2], len(call.args))
    return (call.args[place], call.args[place + 1]) if place + 1 < len(call.args) else None


def _codes(node: ast.expr, before: Sequence[ast.Assign]) -> set[str]:
    """Return the codes that an expression can have: those of a text, of a choice, or of a variable (`before`)."""
    match node:
        case ast.Constant(value=str(text)) if re.fullmatch("[A-Za-z_]+", text):
            return {text}
        case ast.IfExp(body=first, orelse=second):
            return _codes(first, before) | _codes(second, before)
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _constants():
            return {_constants()[name]}
        case ast.Name(id=name):
            for one in reversed(before):
                for target, value in zip(_parts(one.targets[0]), _parts(one.value), strict=False):
                    if ast.unparse(target) == name:
                        return _codes(value, ())
    return set()


def _parts(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _message(node: ast.expr, before: Sequence[ast.Assign]) -> str:
    """Return the text of a string in source, with `…` for each value in it; for other expressions the empty text.
    `before`: the assignments that come before the expression, the nearest last.
    """
    match node:
        case ast.Name(id=name):
            values = (one.value for one in reversed(before) for target in one.targets if ast.unparse(target) == name)
            return next((text for value in values if (text := _message(value, ()))), "")
        case ast.Subscript(value=whole):
            return _message(whole, before)
        case ast.Call(func=ast.Attribute(value=template, attr="format")):
            return _message(template, before).replace("{}", "…")
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    return ""


_CONSTANT = re.compile(r'^([A-Z_]+) = "([a-z_]+)"$', re.M)
"""A constant of a module whose value has the form of a code."""


@cache
def _constants() -> dict[str, str]:
    """Return the constants of the source whose values have the form of a code."""
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "src").rglob("*.py"))]
    return {name: value for text in texts for name, value in _CONSTANT.findall(text)}


def decision_codes() -> set[str]:
    """Return every code that the source gives to a `Reason` of a decision: a text, or a constant with a text. Raises
    ValueError for any other expression, except a `code` that is passed on: the tables of errors describe the codes of
    errors.
    """
    texts = {path: path.read_text("utf-8") for path in sorted((ROOT / "src").rglob("*.py"))}
    codes = set()
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)) if "Reason(" in text else ():
            match node:
                case ast.Call(func=ast.Name(id="Reason") | ast.Attribute(attr="Reason"), args=[code, *_]):
                    match code:
                        case ast.Constant(value=str(literal)):
                            codes.add(literal)
                        case ast.Name(id=name) if name in _constants():
                            codes.add(_constants()[name])
                        case _ if not re.search(r"\bcode\b", ast.unparse(code)):
                            raise ValueError(f"{path}:{node.lineno}: cannot read the code of this reason")
    return codes


@cache
def events() -> str:
    """Render the actions of ledger entries, by their first word."""
    families: defaultdict[str, set[str]] = defaultdict(set)
    for action in _actions():
        families[action.partition(".")[0]].add(action)
    rows = "\n".join(
        f"| {FAMILIES[name]} | {', '.join(f'`{action}`' for action in sorted(families[name]))} |"
        for name in sorted(families)
    )
    return f"""# Events

This page is for operators who search the ledger, and for developers of webhooks and SIEM exports. After reading this
page, you can look up the actions that a ledger entry names. The page is generated from the source: `make docs`.

Every act leaves an entry with an `action`, a time, an outcome and the ids of the objects that the act concerns. A
refused act leaves an entry with the same action and the [reason codes](reasons.md) of the refusal; a challenge, such
as the demand for a DPoP nonce, leaves none. If one caller or network causes too many refusals, further ones are only
counted, in entries `refusals.summary`.
[Webhooks](../how-to/elevation.md#webhooks) deliver entries by action; Shared Signals have [events of their
own](../how-to/signals.md).

| subject | actions |
| --- | --- |
{rows}
"""


_NO_ACTIONS = frozenset(
    {
        "entry.idx",  # a column
        "ledger.pin",  # a file
        "network.peer.address",  # attributes of OpenTelemetry
        "server.address",
        "policy.cedar",  # files
        "secret.retire",  # types of calls to the service of a rotated secret
        "secret.rotate",
        "server.json",
        "server.pid",
        "workload.spiffe.io",  # a header
    }
)
"""Strings of the server's source that have the form of an action and name something else."""


def _actions() -> Iterator[str]:
    """Yield the strings of the server's source that are actions, and the actions that `make_decision_handler` of the
    incidents composes.
    """
    yield from (f"incident.{verb}" for verb in IncidentVerb)
    pattern = re.compile(rf"(?:{'|'.join(sorted(FAMILIES))})(?:\.[a-z][a-z0-9_]*)+")
    for path in sorted((ROOT / "src" / "ostiaryd").rglob("*.py")):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if pattern.search(text) else ():
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and pattern.fullmatch(value) and value not in _NO_ACTIONS:
                yield value


def records() -> str:
    """Render the list of decision records below the introduction that the page has."""
    page = RECORDS / "README.md"
    introduction = page.read_text("utf-8").partition("| record |")[0]
    rows = []
    for path in sorted(RECORDS.glob("[0-9]*.md")):
        number, title = path.name[:4], path.read_text("utf-8").partition("\n")[0].partition(". ")[2]
        if number != "0000":
            rows.append(f"| [{number}]({path.name}) | {title}. |\n")
    return f"{introduction}| record | decision |\n| --- | --- |\n{''.join(rows)}"


def glossary() -> str:
    """Render the terms of terms.toml, and the closed sets of words of the code."""
    terms = tomllib.loads(TERMS.read_text("utf-8"))
    tables = {
        part: "\n".join(
            f"| {name} | {meaning} |" for name, meaning in sorted(rows.items(), key=lambda row: row[0].lower())
        )
        for part, rows in terms.items()
    }
    closed = "\n".join(f"| {name} | {', '.join(f'`{word}`' for word in words)} |" for name, words in CLOSED.items())
    return f"""# Glossary

This page is for everyone who reads or writes about Ostiary. After reading this page, you can use each term in its one
meaning. The page is generated from `docs/terms.toml` and from the code: `make docs`.

## Terms

| term | meaning |
| --- | --- |
{tables["things"]}

## Verbs

| verb | meaning |
| --- | --- |
{tables["verbs"]}

## Closed sets of words

Each of these sets is complete: the code accepts no other words in these places.

| set | words |
| --- | --- |
{closed}
"""
