"""Entities that a set states: accepted as a whole or refused with the reason, limited in number, equal at guards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiary.authorization import cedar
from ostiary.authorization.cedar.values import Uid
from ostiary.decision.access import Policies
from ostiary.decision.feed import PolicyFact
from ostiary.guard.knowledge import Knowledge
from ostiary.protocol.errors import Refused
from ostiaryd.feed.flows.snapshot import policy_fact
from ostiaryd.ground.world import World
from ostiaryd.policy import flows
from ostiaryd.policy.model import load, vocabulary
from ostiaryd.policy.model.entities import MAX_ANCESTORS, MAX_ENTITIES
from tests.support.decision_fixtures import call
from tests.support.policy_fixtures import put

SCHEMA = """
    entity group in [group];
    entity user in [group] = { id: String, role?: String };
    entity card enum ["red", "blue"];
    action see appliesTo { principal: user, resource: user };
"""
PERMIT = 'permit (principal, action == Action::"see", resource);'


def a_set(entities: Any, **files: str) -> dict[str, str]:
    text = entities if isinstance(entities, str) else json.dumps(entities)
    return {"a.cedar": PERMIT, "a.cedarschema": SCHEMA, "a.entities.json": text} | files


def one(type: str = "user", id: str = "u", **more: Any) -> dict[str, Any]:
    return {"uid": {"type": type, "id": id}} | more


def test_entities_are_read_with_their_id_and_all_their_ancestors() -> None:
    entities = [
        one("group", "inner", parents=[{"type": "group", "id": "outer"}]),
        one(attrs={"role": "x"}, parents=[{"__entity": {"type": "group", "id": "inner"}}]),
    ]
    loaded = load(a_set(entities, **{"b.entities.json": json.dumps([one("group", "outer")])}))
    user = loaded.policies.entities[Uid("user", "u")]
    assert user.attrs == {"id": "u", "role": "x"}
    assert user.lineage == {Uid("user", "u"), Uid("group", "inner"), Uid("group", "outer")}
    assert loaded.ready.ids == {"user": ("u",), "group": ("inner", "outer")}


def test_the_hash_of_a_set_covers_its_entities() -> None:
    assert load(a_set([one()])).hash != load(a_set([one(id="v")])).hash != load(a_set([])).hash


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": ("[", "a.entities.json: not JSON"),
    "no list": ({}, "a.entities.json: entities must be a list of objects"),
    "no objects": ([1], "a.entities.json: entities must be a list of objects"),
    "a member twice": ('[{"uid": {"type": "user", "id": "u", "id": "v"}}]', "same member twice"),
    "no uid": ([{"attrs": {}}], "exactly `type` and `id`"),
    "no string": ([one(id=1)], "exactly `type` and `id`"),  # type: ignore[arg-type]
    "more in a uid": ([{"uid": {"type": "user", "id": "u", "x": "y"}}], "exactly `type` and `id`"),
    "no parents": ([one(parents={})], "`parents` must be a list"),
    "no parent": ([one(parents=["x"])], "exactly `type` and `id`"),
    "no attributes": ([one(attrs=[])], "`attrs` must be an object"),
    "more": ([one(x=1)], "the entities: an entity must be an object with `uid`"),
    "another id": ([one(attrs={"id": "v"})], 'the attribute `id` of user::"u" differs from its id'),
    "twice": ([one(), one()], 'the entities: the entity user::"u" occurs twice'),
    "an unknown type": ([one("spaceship")], "there is no type 'spaceship'; there are card, group, user"),
    "an unknown parent": ([one(parents=[{"type": "x", "id": "y"}])], "there is no type 'x'"),
    "an agent": ([one("Agent", "ag_1")], 'a file cannot state Agent::"ag_1"'),
    "a parent of the registry": ([one(parents=[{"type": "Owner", "id": "o"}])], "a file cannot"),
    "an attribute that the type has not": ([one("group", attrs={"x": 1})], 'group::"u" does not fit the schema'),
    "an attribute of another type": ([one(id="ok"), one(attrs={"role": 1})], 'user::"u" does not fit the schema'),
    "a parent that may be none": ([one(parents=[{"type": "user", "id": "v"}])], 'user::"u" does not fit the schema'),
    "its own ancestor": ([one("group", "g", parents=[{"type": "group", "id": "g"}])], "is its own ancestor"),
    "another name of an enumeration": ([one("card", "green")], "does not fit the schema"),
    "null": ([one(attrs={"role": None})], "Cedar has no value for null"),
    "a fraction": ([one(attrs={"role": 1.5})], "Cedar has no value for float"),
    "deep": ('[{"uid":{"type":"user","id":"u"},"attrs":{"role":' + "[" * 40 + "]" * 40 + "}}]", "nested"),
    "very deep": ("[" * 100_000, "a.entities.json: "),
    "a lone surrogate": ('[{"uid":{"type":"user","id":"\\ud800"}}]', "a.entities.json: not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_invalid_entity_is_refused_with_its_reason(case: str) -> None:
    entities, said = WRONG[case]
    with pytest.raises(Refused) as refused:
        load(a_set(entities))
    assert said in refused.value.message


def chain(length: int) -> list[dict[str, Any]]:
    """Groups each in the next one: the first has `length` ancestors."""
    return [one("group", f"g{n}", parents=[{"type": "group", "id": f"g{n + 1}"}]) for n in range(length)]


def test_the_number_of_ancestors_of_an_entity_is_limited() -> None:
    load(a_set(chain(MAX_ANCESTORS)))
    for length in (MAX_ANCESTORS + 1, 9000):
        with pytest.raises(Refused, match=f"more than {MAX_ANCESTORS} ancestors"):
            load(a_set(chain(length)))


@pytest.mark.slow
def test_the_number_of_entities_of_a_set_is_limited() -> None:
    load(a_set([one(id=str(number)) for number in range(MAX_ENTITIES)]))
    with pytest.raises(Refused, match=f"the set has {MAX_ENTITIES + 1} entities"):
        load(a_set([one(id=str(number)) for number in range(MAX_ENTITIES + 1)]))


def test_a_test_case_of_a_set_uses_its_entities() -> None:
    test = """
        [[case]]
        name = "the chief sees"
        subject = { type = "user", id = "u", properties = { role = "guest" } }
        action = "see"
        resource = { type = "user", id = "v" }
        expect = "allow"
    """
    rule = PERMIT.replace(";", ' when { principal in group::"g" && principal has role && principal.role == "chief" };')
    entities = [one(attrs={"role": "chief"}, parents=[{"type": "group", "id": "g"}])]
    load(a_set(entities, **{"a.cedar": rule, "a.test.toml": test}))
    with pytest.raises(Refused, match="the chief sees"):
        load(a_set([one()], **{"a.cedar": rule, "a.test.toml": test}))


def test_guards_receive_the_complete_entities_of_a_set_or_an_empty_text() -> None:
    test = '[[case]]\nname = "x"\nsubject = { type = "user", id = "u" }\naction = "see"\nexpect = "allow"\n'
    test += 'resource = { type = "user", id = "u" }\n'
    told = load(a_set([one()], **{"a.test.toml": test})).ready.entities
    assert json.loads(told) == [one(attrs={"id": "u"}, parents=[])]
    assert load(a_set([], **{"a.test.toml": test})).ready.entities == ""


async def test_a_set_compiled_again_from_the_database_has_the_same_entities(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash = await put(world, a_set([one(attrs={"role": "x"})]))
    before = flows.ready_set(world.db.read(), hash)
    monkeypatch.setattr("ostiaryd.policy.flows.sets._compiled", {})
    again = flows.ready_set(world.db.read(), hash)
    assert (again.policies.entities, again.ids, again.vocabulary, again.entities) == (
        before.policies.entities,
        before.ids,
        before.vocabulary,
        before.entities,
    )


async def test_guards_receive_the_entities_of_a_set_and_decide_with_them(world: World) -> None:
    rule = """
        permit (principal is Agent, action == Action::"call", resource is Tool)
        when { user::"u" has role && user::"u".role == "x" && user::"u" in group::"g" };
    """
    await put(world, a_set([one(attrs={"role": "x"}, parents=[{"type": "group", "id": "g"}])], **{"b.cedar": rule}))
    fact = policy_fact(world.db.read())
    knowledge = Knowledge()
    knowledge.learn(fact)
    assert knowledge.policies is not None
    assert knowledge.policies.entities == flows.active_policies(world.db.read()).entities
    assert call(policies=knowledge.policies).allowed
    alone = Policies(fact.hash, cedar.ir.parse(fact.policies.encode()))
    assert not call(policies=alone).allowed
    await put(world, {"a.cedar": PERMIT.replace(' == Action::"see"', "")})
    assert policy_fact(world.db.read()).entities == ""
    with pytest.raises(Refused):
        knowledge.learn(PolicyFact("hash", fact.policies, '[{"uid": 1}]'))


def test_a_schema_is_read_with_its_namespaces_and_strange_names() -> None:
    printed = load(
        {
            "a.cedar": PERMIT,
            "a.cedarschema": SCHEMA
            + r"""
            namespace Shop::Inner {
                entity clerk in [Group] = { "id": String, record: { id: Long } };
                entity Group;
                action sell appliesTo { principal: clerk, resource: clerk };
            }
            entity thing = { inner: { id: String }, id: Long };
            action "say \"x\"\n", tell in [all]
                appliesTo { principal: [user, thing], resource: [thing, Shop::Inner::clerk] };
            action all;
            """,
        }
    ).ready.vocabulary
    assert printed.types["Shop::Inner::clerk"] is True
    assert (printed.types["thing"], printed.types["Shop::Inner::Group"], printed.types["card"]) == (False, False, False)
    assert printed.actions_of("thing", "Shop::Inner::clerk") == ['say "x"\n', "tell"]
    assert printed.actions_of("user", "user") == ["see"]
    assert printed.actions_of("Agent", "Tool") == ["call"]
    assert "sell" not in printed.actions
    assert vocabulary.read_vocabulary("") == vocabulary.Vocabulary()
