"""Policies on issuance: tokens, delegated tasks, certificates, secrets, and elevations. If a verdict of a Rego or OPA
policy is missing, each check raises RemotePoliciesNeeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ostiary.authorization import assurance
from ostiary.authorization.bounds import ToolDetail, datatypes
from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.partial import PartialRecord, Unknown
from ostiary.authorization.cedar.render import encode_record
from ostiary.authorization.cedar.values import Entity, Overlay, Record, Uid, entity
from ostiary.authorization.claims import Link
from ostiary.decision.access import Judgement, Policies, RemoteAnswers
from ostiary.decision.access.chain import Chain, chain_of
from ostiary.decision.access.chain_evaluator import ChainCache
from ostiary.decision.access.facts import resource_entity, secret_entity
from ostiary.decision.access.reasons import reasons_of
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.decide import keep_facts, other_details
from ostiaryd.policy.flows.entity_lookup import agent_with_facts, resource_with_facts, risk_context
from ostiaryd.policy.flows.external_retry import answers_of, check_answered
from ostiaryd.policy.flows.sets import active_policies
from ostiaryd.policy.model import (
    AgentSeen,
    Posed,
    ResourceSeen,
    SecretSeen,
    Seen,
    encode_context,
)
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller, Resource
from ostiaryd.tasks.model import Task

ISSUE = Uid("Action", "issue_token")
DELEGATE = Uid("Action", "delegate")
ELEVATE = Uid("Action", "elevate")
CERTIFY = Uid("Action", "issue_certificate")


class TaskChain(NamedTuple):
    """A task as policies see it: its id (empty for none), the agents and tasks through which it was delegated (`links`,
    the nearest first), and the person on whose behalf it runs (None for none).
    """

    task: str
    links: tuple[Link, ...] = ()
    person: str | None = None

    @classmethod
    def of(cls, task: Task) -> TaskChain:
        """Return the chain of a task, which must have been read with its delegation chain (`with_chain`)."""
        return cls(task.task_id, task.chain, task.person)


def decide_issue(
    act: Act,
    agent: Agent,
    chain: TaskChain,
    *,
    resource: Resource | None,
    uri: str,
    scopes: frozenset[str],
    details: Sequence[ToolDetail] = (),
    acr: str,
) -> str:
    """Check that the policies permit `agent` a token for `resource`, or, if `resource` is None, for the unregistered
    `uri`; return the hash of the policy set. `scopes` and `details`: the content of the token; `acr`: the assurance
    that it states. Raises Forbidden (`access_denied`) otherwise.
    """
    handed = _handed(agent.agent_id, chain, _reach(scopes, _proved(acr), details))
    return _check(act, agent, ISSUE, _target(act.tx, resource, uri), handed)


def check_delegation(
    act: Act,
    giver: Agent,
    receiver: Agent,
    chain: TaskChain,
    *,
    scopes: frozenset[str],
    details: Sequence[ToolDetail] = (),
    depth: int,
) -> None:
    """Check that the policies permit `giver` to delegate a part of its task to `receiver`. `chain`: the giver's task,
    and how `giver` got it; `scopes` and `details`: the part; `depth`: the number of delegations from the first agent to
    the receiver. Raises Forbidden (`access_denied`) otherwise.
    """
    handed = _handed(giver.agent_id, chain, _reach(scopes, (("depth", depth),), details))
    _check(act, giver, DELEGATE, agent_with_facts(receiver), handed)


def check_certificate(
    act: Act,
    agent: Agent,
    chain: TaskChain,
    *,
    profile: str,
    names: frozenset[str],
    key_type: str,
    lifetime_s: int,
) -> str:
    """Check that the policies permit `agent` a certificate for these names (such as `dns:api.example.com`); return the
    hash of the policy set. Raises Forbidden (`access_denied`) otherwise.
    """
    members = ("profile", profile), ("names", names), ("key_type", key_type), ("lifetime", lifetime_s)
    return _check(act, agent, CERTIFY, agent_with_facts(agent), _handed(agent.agent_id, chain, members))


def check_secret(
    act: Act,
    agent: Agent,
    chain: TaskChain,
    *,
    action: str,
    operation: str,
    secret: SecretSeen,
    scopes: frozenset[str],
    acr: str,
    request: tuple[tuple[str, str], ...] = (),
    token_scopes: frozenset[str] | None = None,
) -> str:
    """Check that the policies permit `agent` the Cedar action `action` (such as `read_secret`) on a secret; `operation`
    is the exact operation of the API (such as `metadata`). Return the hash of the policy set.

    `request`: attributes of the outgoing request into which a proxy inserts the secret. `token_scopes`: the scopes of
    the access token, for a connected account (`read_account_token`). Raises Forbidden (`access_denied`) otherwise.
    """
    more: Members = ("operation", operation), *request, *_proved(acr)
    if token_scopes is not None:
        more = (*more, ("token_scopes", token_scopes))
    handed = _handed(agent.agent_id, chain, _reach(scopes, more))
    target = secret_entity(secret.mount, secret.path, agent=secret.agent), secret
    return _check(act, agent, Uid("Action", action), target, handed)


def may_use_secrets(
    act: Act,
    agent: Agent,
    chain: TaskChain,
    *,
    actions: Sequence[str],
    mount: str,
    path: str | None = None,
    scopes: frozenset[str],
    acr: str,
) -> bool:
    """Return whether the policies might permit `agent` one of the actions on the secret at `path` of the mount; with
    None, on any secret of the mount. Policies in Rego or OPA count as permitting. This is only a forecast: the result
    is no decision, and is not recorded.
    """
    policies, principal = active_policies(act.tx), agent_with_facts(agent)[0]
    handed = _handed(agent.agent_id, chain, _reach(scopes, _proved(acr)))
    behind = handed.chain.behind
    risk = risk_context(act.tx, policies, agent, chain.task, chain.links, at=act.now)
    context = {**handed.context, **risk, "now": Datetime(act.now // 1000)}
    request = PartialRecord(context, Unknown("request", optional=True))
    links = (principal.uid, *(one.uid for one in behind))
    for secret in _secrets_of(policies, mount) if path is None else [secret_entity(mount, path, agent="")]:
        entities = Overlay.of(policies.known, principal, secret, *behind)
        if any(policies.foresee(links, Uid("Action", one), secret.uid, request, entities).may for one in actions):
            return True
    return False


def _secrets_of(policies: Policies, mount: str) -> list[Entity]:
    """Return the secrets of a mount that policies name, and a secret of the mount whose path is not known."""
    start, paths = f"{mount}/", dict[str, Any]()
    paths[start] = agent = Unknown("path", kind=str)
    paths |= {one: one.removeprefix(start) for one in _named_secrets(policies) if one.startswith(start)}
    attributes: dict[str, dict[str, Any]] = {
        id: {"mount": mount, "path": path, "agent": agent} for id, path in paths.items()
    }
    return [entity(Uid("Secret", id), members) for id, members in attributes.items()]


@lru_cache(maxsize=4)
def _named_secrets(policies: Policies) -> list[str]:
    return policies.named_resources("Secret")


Members = tuple[tuple[str, int | str | frozenset[object]], ...]
"""Members of the context of policies, with their values."""


class Handed(NamedTuple):
    """The facts that policies get about an issuance or a delegation: the person, the scopes and data classes, and the
    delegation chain. `context`: these facts as a Cedar record; `members`: the same, each encoded as JSON; `encoded`:
    the JSON object of `members`. The time and the risk are not included.
    """

    context: Record
    members: dict[str, msgspec.Raw]
    encoded: msgspec.Raw
    origin: TaskChain
    chain: Chain


@lru_cache(maxsize=4096)
def _handed(agent: str, origin: TaskChain, more: Members) -> Handed:
    """Return the context of an issuance. The result is cached, because an agent usually sends an equal request
    again.
    """
    chain = chain_of(origin.links, holder=agent)
    first = chain.behind[-1].uid.id if chain.behind else agent
    context: Record = {"subject": origin.person or first, "task": origin.task, **dict(more)}
    members = {**encode_record(context), **chain.encoded}
    return Handed(context | chain.context, members, encode_context(members), origin, chain)


def _reach(scopes: frozenset[str], more: Members = (), details: Sequence[ToolDetail] = ()) -> Members:
    """Return the members for the extent of an issuance: its scopes, `more`, and the data classes of its bounds."""
    members: Members = ("scopes", scopes), *more
    classes = datatypes(details) if details else None
    return members if classes is None else (*members, ("datatypes", classes))


@lru_cache(maxsize=64)
def _proved(acr: str) -> Members:
    return ("acr", acr), ("amr", frozenset(assurance.AMRS.get(acr, ())))


def judge_elevation(
    act: Act, agent: Agent, *, task: str, scopes: frozenset[str], minutes: int, break_glass: bool
) -> tuple[Judgement, Policies]:
    """Return the judgement of the active policies on an elevation (additional scopes for some minutes), and these
    policies. If no policy permits the elevation, but one asks for approval, the judgement is `approval_needed`. Raises
    RemotePoliciesNeeded if a verdict of a Rego or OPA policy is missing.
    """
    more = (("minutes", minutes), ("break_glass", break_glass))
    handed = _handed(agent.agent_id, TaskChain(task), _reach(scopes, more))
    judgement, policies = _judge(act, agent, ELEVATE, agent_with_facts(agent), handed)
    if judgement.because == "no_permit":
        principal = agent_with_facts(agent)[0]
        entities, now = Overlay.of(policies.known, principal), Datetime(act.now // 1000)
        context = handed.context | {"now": now} | risk_context(act.tx, policies, agent, task, at=act.now)
        if asking := policies.asking(principal.uid, ELEVATE, principal.uid, context, entities):
            judgement = replace(judgement, because="approval_needed", policies=asking)
    return judgement, policies


def _check(act: Act, agent: Agent, action: Uid, resource: tuple[Entity, Seen], handed: Handed) -> str:
    """Return the hash of the policies if they permit the action. Raises Forbidden if not, RemotePoliciesNeeded if a
    verdict of remote policies is missing.
    """
    judgement, policies = _judge(act, agent, action, resource, handed)
    if not judgement.allowed:
        first = reasons_of(judgement, policies)[0]
        raise Forbidden(first.message, hint=first.hint, code="access_denied")
    return policies.hash


def _judge(
    act: Act, agent: Agent, action: Uid, resource: tuple[Entity, Seen], handed: Handed
) -> tuple[Judgement, Policies]:
    """Ask the policies, and record the question and the deciding policies. Raises RemotePoliciesNeeded if a verdict of
    remote policies is missing.
    """
    policies, principal = active_policies(act.tx), agent_with_facts(agent)
    remote = answers_of(act, policies)
    origin, chain = handed.origin, handed.chain
    risk = risk_context(act.tx, policies, agent, origin.task, origin.links, at=remote.at)
    posed = Posed(
        principal=principal[1],
        action=action.id,
        resource=resource[1],
        context=encode_context({**handed.members, **encode_record(risk)}) if risk else handed.encoded,
    )
    keep_facts(act, act.entry, [posed], at=remote.at)
    entities = Overlay.of(policies.known, principal[0], resource[0], *chain.behind)
    context = {**handed.context, **risk, "now": Datetime(remote.at // 1000)}
    judgement = policies.judge(
        principal[0].uid,
        action,
        resource[0].uid,
        context,
        entities,
        remote.look_up,
        behind=[one.uid for one in chain.behind],
        cache=_chain_cache(policies, principal[1], resource[1], chain) if chain.behind else None,
    )
    check_answered(act, remote)
    act.entry.policy = policies.hash
    act.entry.policies = [*act.entry.policies, *judgement.policies]
    if details := other_details(judgement):
        act.entry.detail = (act.entry.detail or {}) | details
    return judgement, policies


@lru_cache(maxsize=1024)
def _chain_cache(policies: Policies, principal: AgentSeen, resource: Seen, chain: Chain) -> ChainCache:
    """Return the cache of this chain. The recorded facts determine the entities, so equal facts share a cache."""
    return {}


def why_no_token(reader: Reader, policies: Policies, caller: Caller, *, uri: str, remote: RemoteAnswers) -> str:
    """Return the reason for which these policies would deny the caller another token for the resource `uri`; empty if
    they would permit it, or if the caller is not an agent. `remote`: verdicts of Rego and OPA policies.
    """
    if caller.kind != "agent" or (agent := registry.get_agent(reader, caller.id)) is None:
        return ""
    acr = assurance.BEARER if caller.jkt is None else assurance.KEY
    principal, (target, _) = agent_with_facts(agent)[0], _target(reader, registry.get_resource_by_uri(reader, uri), uri)
    handed = _handed(agent.agent_id, TaskChain(caller.task or ""), _reach(caller.scopes, _proved(acr)))
    risk = risk_context(reader, policies, agent, caller.task or "", at=remote.at)
    context = {**handed.context, **risk, "now": Datetime(remote.at // 1000)}
    entities = Overlay.of(policies.known, principal, target)
    judgement = policies.judge(principal.uid, ISSUE, target.uid, context, entities, remote.look_up)
    return "" if judgement.allowed else reasons_of(judgement, policies)[0].message


def _target(reader: Reader, resource: Resource | None, uri: str) -> tuple[Entity, ResourceSeen]:
    if resource is None:
        return resource_entity("", uri=uri, segment=""), ResourceSeen("", uri)
    return resource_with_facts(reader, resource)
