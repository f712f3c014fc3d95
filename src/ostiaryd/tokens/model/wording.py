"""Text of a consent page: a line in plain words for each scope and each bound. Names come from the registry, never from
the client.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from ostiary.authorization.bounds import Condition, ToolDetail
from ostiary.authorization.catalogue import Catalogue, Effect
from ostiaryd.tokens.model.authorization import IDENTITY_SCOPES, OPENID
from ostiaryd.tokens.model.consent import LIFETIMES, Consent, find_lookalike

MAX_TOOLS_SHOWN = 40
EFFECTS = {
    Effect.READ: "reads",
    Effect.WRITE: "writes",
    Effect.SEND: "sends to others",
    Effect.DESTROY: "deletes or overwrites",
    Effect.PAY: "spends money",
    Effect.SHARE: "shares with others",
    Effect.CHANGE: "changes settings",
    Effect.ADMINISTER: "changes access rights",
}


class Line(NamedTuple):
    """A line of a consent page: the form field of its checkbox, its title, its details, and whether the person can
    untick the checkbox.
    """

    field: str
    title: str
    parts: tuple[str, ...] = ()
    is_fixed: bool = False


def word_scopes(scopes: Iterable[str], catalogue: Catalogue | None) -> list[Line]:
    """Return a line of the consent page for each scope of a resource, with the tools that the scope permits."""
    return [Line(f"scope.{scope}", scope, _tools_of(scope, catalogue)) for scope in sorted(scopes)]


def word_identity(scopes: Iterable[str]) -> list[Line]:
    """Return a line of the consent page for each scope of OpenID Connect, such as the e-mail address."""
    return [
        Line(f"scope.{scope}", words, is_fixed=scope == OPENID)
        for scope, words in IDENTITY_SCOPES.items()
        if scope in scopes
    ]


def word_details(details: Iterable[ToolDetail]) -> list[Line]:
    """Return a line of the consent page for each bound, with the conditions of the bound in words."""
    return [Line(f"detail.{place}", _tools(detail), tuple(_conditions(detail))) for place, detail in enumerate(details)]


def word_consent(consent: Consent) -> dict[str, list[Line]]:
    """Return the scopes and bounds of a consent in the words of the consent page, under a title for each kind."""
    return {
        "May use": word_scopes(consent.scopes - IDENTITY_SCOPES.keys(), None),
        "Of these, only": word_details(consent.details),
        "About you": word_identity(consent.scopes),
    }


def _tools_of(scope: str, catalogue: Catalogue | None) -> tuple[str, ...]:
    if catalogue is None:
        return ()
    scope_class = scope.partition(":")[2]
    tools = [tool for tool in catalogue.tools.values() if tool.scope_class == scope_class]
    shown = [f"{tool.name}: {EFFECTS[tool.effect]}" for tool in tools[:MAX_TOOLS_SHOWN]]
    rest = len(tools) - len(shown)
    return (*shown, f"and {rest} more tools") if rest else tuple(shown)


def _tools(detail: ToolDetail) -> str:
    tools = "any tool" if detail.actions is None else ", ".join(detail.actions)
    return tools if detail.datatypes is None else (f"{tools}, with no other data than {', '.join(detail.datatypes)}")


def _conditions(detail: ToolDetail) -> Iterable[str]:
    for argument, condition in detail.arguments.items():
        yield f"{argument} {' and '.join(_words(condition))}"


def _words(condition: Condition) -> Iterable[str]:
    if condition.eq is not None:
        yield f"is {condition.eq}"
    if condition.one_of is not None:
        yield f"is one of {', '.join(map(str, condition.one_of))}"
    if condition.prefix is not None:
        yield f"begins with {condition.prefix}"
    if condition.glob is not None:
        yield f"matches {condition.glob}"
    if condition.min is not None:
        yield f"is at least {condition.min}"
    if condition.max is not None:
        yield f"is at most {condition.max}"
    if condition.max_length is not None:
        yield f"has at most {condition.max_length} characters"


class ConsentView(NamedTuple):
    """The content of a consent page. `owner` is the owner of the agent; if empty, the person is the owner. `purpose` is
    the registered purpose of the agent.
    """

    person: str
    client: str
    client_id: str
    owner: str
    purpose: str
    resource: str
    uri: str
    target: str
    """Host that receives the response, as text for the person; empty for a device."""
    identity: list[Line]
    scopes: list[Line]
    details: list[Line]
    warnings: list[str]
    lifetimes: Mapping[int, str] = LIFETIMES


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def word_target(redirect_uri: str) -> str:
    """Return the receiver of a response as text for a person: a host, or an application on the person's device."""
    parts = urlsplit(redirect_uri)
    if parts.scheme not in ("http", "https"):  # after such a scheme, the text between slashes is no host
        return f"an application on this device ({parts.scheme})"
    return "an application on this computer" if parts.hostname in _LOOPBACK else parts.netloc


def warn_about(
    *, name: str, host: str, redirect_uri: str, others: Collection[str], has_changed: bool, is_known: bool
) -> list[str]:
    """Return the warnings that a person should read before consenting.

    `host` is the host that vouches for the client (empty for none); `others` are the names of clients that the person
    or an administrator knows; `has_changed`: the client changed its registration after an earlier consent. `is_known`:
    an administrator registered the client.
    """
    warnings = []
    if not is_known:
        vouched = f"Only {host} vouches for it." if host else "The application chose its name and address itself."
        warnings.append(f"No administrator has registered this application. {vouched}")
    if (other := find_lookalike(name, others)) is not None:
        warnings.append(f"The name of the application looks like `{other}`, which is another application.")
    target = urlsplit(redirect_uri)
    if host and target.scheme in ("http", "https") and target.hostname not in (host, *_LOOPBACK):
        warnings.append(f"The application receives the answer at {target.hostname}, which is not {host}.")
    if has_changed:
        warnings.append("The application has changed its name, keys or redirect addresses since you agreed.")
    return warnings
