"""Loading of a policy set from its files: cedarpy parses and validates the policies, `lower` translates them, and the
tests of the set run.

Loading takes about 0.2 milliseconds for a policy and has no effects. Load a set in a thread, before the act that stores
the set.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import get_args

import cedarpy
import msgspec

from ostiary.authorization import assurance
from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.values import Entity, Uid, entity, parse_uid
from ostiary.decision.access import Needs, Policies, RemoteSource
from ostiary.decision.access.policies import approvers
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiaryd.policy.model.cases import parse_cases, run_cases
from ostiaryd.policy.model.cedar_text import MAX_POLICIES, check_policies, check_schema
from ostiaryd.policy.model.entities import by_type, check_entities, read_entities
from ostiaryd.policy.model.files import POLICIES, SAFEGUARDS, SCHEMA, TESTS, check_files, digest, of_kind
from ostiaryd.policy.model.lower import lower
from ostiaryd.policy.model.playbooks import Playbooks
from ostiaryd.policy.model.rego import Engine, Program, check_data_names, read_program
from ostiaryd.policy.model.roles import Roles
from ostiaryd.policy.model.safeguards import EVERY_PERSON, extend, is_copy, own_files, role_layer, safeguards_in
from ostiaryd.policy.model.vocabulary import Vocabulary, read_vocabulary
from ostiaryd.registry.model import check_name

MAX_APPROVERS = 16
MESSAGE_LIMIT = 400


@dataclass(frozen=True, slots=True)
class Ready:
    """A compiled policy set that can decide requests. `ids`: by entity type, the ids of the entities that the files of
    the set state, which searches examine.
    """

    policies: Policies
    vocabulary: Vocabulary
    ids: dict[str, tuple[str, ...]]
    entities: str
    """the set's own entities as JSON for guards; empty if there are none"""
    playbooks: Playbooks
    roles: Roles
    program: Program | None = None
    """the policies that are not Cedar"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy set that was parsed, validated, tested and compiled. `ir`: its Cedar policies in compiled form;
    `actions`: the actions of its schema with their groups; `tests`: the number of its test cases.
    """

    hash: str
    files: dict[str, str]
    ir: ir.PolicySetIR
    actions: dict[Uid, Entity]
    ready: Ready
    tests: int

    @property
    def policies(self) -> Policies:
        """Return the compiled policies."""
        return self.ready.policies

    @property
    def count(self) -> int:
        """Return the number of policies of the set, in any language, without the safeguards and roles of the server."""
        return len(self.ir.policies) + len(self.policies.remote) - self.safeguards - len(role_layer(self.files))

    @property
    def safeguards(self) -> int:
        """Return how many safeguards of the server are part of the set; safeguards that the set leaves out do not
        count.
        """
        return len(safeguards_in(self.files))


def load(files: Mapping[str, str], engine: Engine | None = None) -> Loaded:
    """Load a policy set from its files: check, test and compile it. `engine` evaluates policies in Rego or OPA; without
    an engine, a set with such policies is refused.

    The checks are, in this order: the limits of the files, the schema, each Cedar file against the schema, the
    entities, the policies in Rego or OPA, the test cases. Raises Malformed, Invalid or NotModelled for a set that fails
    a check; for a failed test case, the code is `policy_test_failed`.
    """
    own = own_files(files)
    check_files(own)
    schema = _schema(files)
    policies_of = {name: _policies(name, text, schema) for name, text in of_kind(files, POLICIES)}
    extended = [policy for name, policies in policies_of.items() if name not in own for policy in policies]
    kept = {policy.id for policy in extended}
    lowered = [
        policy
        for name, policies in policies_of.items()
        if name in own
        for policy in policies
        if not (policy.id in kept and is_copy(policy))
    ]
    hash = digest(files)
    check_data_names(own)
    program = read_program(hash, files)
    if not lowered and program is None:
        raise Invalid(
            "the set has no policy, so that it would deny everything", hint="write `permit` into a .cedar file"
        )
    _check_safeguards(lowered, extended)
    lowered += extended
    _check_ids(lowered, program)
    actions = _actions(schema)
    policy_set = ir.PolicySetIR(tuple(lowered))
    vocabulary = read_vocabulary(str(schema))
    entities, stated = read_entities(files, vocabulary)
    check_entities(stated, schema)
    policies = Policies(hash, policy_set, actions, entities, program.watching if program else None)
    playbooks = Playbooks(policy_set, policies.known)
    elsewhere = None if program is None else _prepare(program, engine)
    tests = 0
    for name, text in of_kind(files, TESTS):
        cases = parse_cases(name, text)
        run_cases(name, cases, policies, playbooks, elsewhere)
        tests += len(cases)
    ready = Ready(policies, vocabulary, by_type(entities), stated, playbooks, Roles(policy_set), program)
    return Loaded(hash, dict(files), policy_set, actions, ready, tests)


def restore(hash: str, files: Mapping[str, str], policy_set: ir.PolicySetIR, actions: Mapping[Uid, Entity]) -> Ready:
    """Return a compiled set from the stored form of a set that `load` accepted earlier; checks and tests are not
    repeated.
    """
    vocabulary = read_vocabulary(str(_schema(files)))
    entities, stated = read_entities(files, vocabulary)
    program = read_program(hash, files)
    policies = Policies(hash, policy_set, actions, entities, program.watching if program else None)
    has_roles = EVERY_PERSON in role_layer(files)
    roles = (
        Roles(policy_set) if has_roles else starter_files().ready.roles
    )  # the set was stored by a version of the server without role policies
    playbooks = Playbooks(policy_set, policies.known)
    return Ready(policies, vocabulary, by_type(entities), stated, playbooks, roles, program)


def _prepare(program: Program, engine: Engine | None) -> RemoteSource:
    """Check the program of a set, and return the function that evaluates its remote policies for the tests. Raises
    Invalid if the engine cannot evaluate the program.
    """
    if engine is None:
        raise Invalid(
            "the set has policies in Rego or OPA, and only administrators may evaluate such a set",
            hint="use Cedar alone",
        )
    engine.check(program)
    return lambda question: engine.ask(program, question)


def warnings_about(loaded: Loaded) -> list[str]:
    """Return warnings, as sentences, for the person who puts the set: policies that guards cannot evaluate, and tokens
    or delegations that no policy permits.
    """
    lines = []
    enforced = sorted(policy for policy, watches in loaded.policies.remote.items() if not watches)
    if enforced:
        names = ", ".join(f"`{policy}`" for policy in enforced)
        lines.append(
            f"only the server can evaluate {names}: guards ask the server about each call that nothing else denies"
        )
        return lines  # these policies may permit any action
    if not _permits(loaded, "issue_token"):
        lines.append("no policy permits `issue_token`: no client gets a token, administrators included")
    if not _permits(loaded, "delegate"):
        lines.append("no policy permits `delegate`: no agent can delegate a part of its task to another agent")
    return lines


def _permits(loaded: Loaded, action: str) -> bool:
    """Return whether a Cedar policy of the set can permit this action."""
    uid = Uid("Action", action)
    return any(
        policy.effect == "permit"
        and policy.action.equals in (None, uid)
        and (policy.action.within is None or uid in policy.action.within)
        for policy in loaded.ir.policies
    )


@functools.cache
def starter_files() -> Loaded:
    """Return the starter set, which is active until another set is put."""
    folder = resources.files("ostiaryd.policy") / "starter"
    files = {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.startswith("starter.")}
    return load(extend(files, ()))


@functools.cache
def base_schema() -> str:
    """Return the text of the schema that every set extends. The text is cached, because a confined process cannot open
    files.
    """
    return (resources.files("ostiaryd.policy") / "base.cedarschema").read_text("utf-8")


def _schema(files: Mapping[str, str]) -> cedarpy.Schema:
    parts = [base_schema()]
    declared: set[str] = set()
    for name, text in of_kind(files, SCHEMA):
        words = check_schema(name, text)
        declared |= {name for kind, name in itertools.pairwise(words) if kind == "type"}
        parts.append(text)
    parts += [f"type {name} = {{}};" for name in ("Arguments", "Origins") if name not in declared]
    try:
        return cedarpy.Schema.from_str("\n".join(parts), release_gil=True)
    except ValueError as error:
        raise Malformed(f"the schema: {str(error)[:MESSAGE_LIMIT]}") from None


def _actions(schema: cedarpy.Schema) -> dict[Uid, Entity]:
    """Return the actions of a schema by their ids. cedarpy lists all ancestors of an action as its parents."""
    items = msgspec.json.decode(str(cedarpy.Entities.from_json_str("[]", schema=schema)))
    return {
        uid: entity(uid, ancestors=map(parse_uid, item["parents"]))
        for item in items
        for uid in [parse_uid(item["uid"])]
    }


def _policies(name: str, text: str, schema: cedarpy.Schema) -> list[ir.PolicyIR]:
    """Return the policies of a file, validated against the schema. The name of a policy without `@id` is the name of
    the file and the position in the file.
    """
    if check_policies(name, text) > MAX_POLICIES:
        raise Invalid(f"{name} has more than {MAX_POLICIES} policies")
    try:
        lowered = lower(text).policies
    except Refused as error:
        raise type(error)(f"{name}: {error.message[:MESSAGE_LIMIT]}", hint=error.hint) from None
    named = {
        f"policy{index}": policy.annotations.get("id", f"{name.removesuffix(POLICIES)}#{index + 1}")
        for index, policy in enumerate(lowered)
    }
    result = cedarpy.validate_policies(text, schema, release_gil=True)
    if not result.validation_passed:
        first = result.errors[0]
        wrong = str(first.error)[:MESSAGE_LIMIT].replace(f"for policy `{first.policy_id}`, ", "")
        hint = ""
        if unknown := re.match(r"attribute `(?:(arguments|origins)\.)?\w+`", wrong):
            hint = "docs/reference/policies.md lists the attributes of each entity and of the context"
            if unknown[1]:
                hint = f"declare it in a .cedarschema file: type {unknown[1].capitalize()} = {{ name?: String }};"
        raise Invalid(f"{name}: policy {named.get(first.policy_id, first.policy_id)}: {wrong}", hint=hint)
    return [
        policy if "id" in policy.annotations else msgspec.structs.replace(policy, id=named[policy.id])
        for policy in lowered
    ]


def _check_ids(policies: list[ir.PolicyIR], program: Program | None) -> None:
    if len(policies) > MAX_POLICIES:
        raise Invalid(
            f"the set has {len(policies)} policies, which is over the limit of {MAX_POLICIES}",
            hint="combine policies, or move values into entities",
        )
    uses = Counter(policy.annotations.get("id", policy.id) for policy in policies)
    uses.update(program.watching.keys() if program else ())
    for policy in policies:
        name = policy.annotations.get("id", policy.id)
        if not 0 < len(name) <= 200:
            raise Invalid(f"the @id {name[:50]!a} has {len(name)} characters", hint="use 1 to 200 characters")
        if uses[name] > 1:
            raise Invalid(f"two policies have the name {name!a}", hint="give each policy an @id of its own")
        if policy.id != name:
            raise Invalid(f"the @id {name!a} is reserved", hint="choose an @id that is not `policy` with a number")
        if policy.annotations.get("mode", "watch") != "watch":
            raise Invalid(f"policy {name!a}: @mode must be `watch` or left out")
        _check_step_up(policy, name)
        if (asks := policy.annotations.get("ask")) is not None and policy.effect == "permit":
            raise Invalid(
                f"policy {name!a}: @ask is on a `permit`",
                hint="keep the `permit` without @ask, and add a `forbid` with @ask",
            )
        if asks not in (None, *get_args(Needs)):
            raise Invalid(f"policy {name!a}: @ask must be `person` or `two`")
        if (covers := policy.annotations.get("covers")) is not None and asks is None:
            raise Invalid(f"policy {name!a}: @covers is set without @ask", hint="add @ask, or remove @covers")
        if covers not in (None, "counterpart"):
            raise Invalid(f"policy {name!a}: @covers must be `counterpart` or left out")
        if "approvers" in policy.annotations:
            _check_approvers(policy, name)


def _check_safeguards(own: list[ir.PolicyIR], extended: list[ir.PolicyIR]) -> None:
    """Check that each own policy of a set with the id of a safeguard is an exact copy of this safeguard. Raises Invalid
    if not.
    """
    ids = {policy.id for policy in extended}
    for policy in own:
        if policy.id in ids:
            raise Invalid(
                f"policy {policy.id!a} has the @id of a safeguard of the server and differs from it",
                hint="delete the policy to keep the safeguard, choose another @id, or name the safeguard in "
                f'a *{SAFEGUARDS} file: [leave_out] {policy.id} = "why"',
            )


def _check_approvers(policy: ir.PolicyIR, name: str) -> None:
    """Check the approvers that a policy names. An approver may be registered after the policy is put. Raises Invalid
    for malformed names, and without @ask.
    """
    named = approvers(policy)
    if "ask" not in policy.annotations:
        raise Invalid(f"policy {name!a}: @approvers is set without @ask", hint="add @ask, or remove @approvers")
    if not 0 < len(named) <= MAX_APPROVERS:
        raise Invalid(f"policy {name!a}: @approvers must be 1 to {MAX_APPROVERS} names with commas between them")
    for one in named:
        check_name(one, of=f"approver of policy {name!a}")


def _check_step_up(policy: ir.PolicyIR, name: str) -> None:
    """Check the step-up that a policy demands. The policy must be a `forbid` whose condition reads the assurance of the
    token, and tokens with the demanded `acr` must exist. Otherwise raises Invalid.
    """
    try:
        demand = assurance.read_annotations(policy.annotations)
    except Invalid as error:
        raise Invalid(f"policy {name!a}: @step_up or @max_age: {error.message}") from None
    if demand is None:
        return
    if policy.effect != "forbid":
        raise Invalid(f"policy {name!a}: @step_up belongs to a `forbid`, and this policy is a `permit`")
    if unknown := [value for value in demand.acr_values if value not in assurance.ACRS]:
        hint = "there are " + " and ".join(assurance.ACRS)
        raise Invalid(f"policy {name!a}: no token has the `acr` {unknown[0]!a}", hint=hint)
    looked_at = {attr for condition in policy.conditions for attr in _of_context(condition)}
    if (demand.acr_values and not looked_at & {"acr", "amr"}) or (demand.max_age and "auth_time" not in looked_at):
        hint = "write `unless { context.acr == .. }`, or for @max_age `context.auth_time`"
        raise Invalid(
            f"policy {name!a}: its condition does not read the assurance that @step_up or @max_age demands", hint=hint
        )


def _of_context(root: ir.Expr) -> Iterator[str]:
    """Yield the attributes of the context that an expression reads."""
    open_ = [root]
    while open_:
        match node := open_.pop():
            case ir.Get(ir.Var("context"), attr):
                yield attr
        open_.extend(ir.children(node))
