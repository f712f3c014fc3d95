"""The safeguards of the server apply under every set, unless the set leaves one out by name with a reason, and whoever
activates the set confirms it.
"""

from __future__ import annotations

import re
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from harness.registry_fixtures import ADMIN, newest_entry
from ostiary.authorization.cedar import ir
from ostiary.protocol.errors import Invalid, Malformed, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, render_admin
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import decode_entry
from ostiaryd.policy import flows, store, wire_admin
from ostiaryd.policy.flows import sets
from ostiaryd.policy.model import Contents, Plan, load, plan_switch, safeguards, starter_files
from ostiaryd.policy.model.safeguards import (
    LAYER,
    MAX_TEXT,
    earlier_rules,
    extend,
    read_left_out,
    roles,
    safeguard_rules,
)
from tests.support.policy_fixtures import Ask, put

PUT, ACTIVATE = "/api/v1/policies", "/api/v1/policies/{hash}/activate"
PERMIT = {"a.cedar": "permit (principal, action, resource);"}
WHY = "the mail gateway rewrites links"
WITHOUT = {"a.safeguards.toml": f'[leave_out]\nno-foreign-links = "{WHY}"\n'}
LEAVES_SAID = {"a.safeguards.toml": '[leave_out]\nsaid-or-recorded = "asked elsewhere"\n'}
EARLIER = Path(flows.__file__).parent.parent / "safeguards" / "earlier"
DIGESTS = Path(__file__).with_name("safeguards.sha256")
"""The digest of each text that a safeguard has or had, so that a change without a copy of the old text is found."""
SECRET = """
[[case]]
name = "secrets stay"
subject = { type = "agent", id = "ag_1" }
action = "call"
resource = { type = "tool", id = "mail/send", properties = { data_classes = ["secret"] } }
expect = "deny"
policies = ["secrets-stay"]
"""


async def test_a_set_extends_the_safeguards(world: World, ask: Ask) -> None:
    status, made = await ask(PUT, {"files": PERMIT | {"a.test.toml": SECRET}})
    assert (status, made["policies"], made["safeguards"]) == (201, 1, len(safeguards()))
    rules = ir.parse(store.get_active_ir(world.db.read())[1].encode())
    assert {policy.id for policy in rules.policies} == {"a#1", *safeguards(), *roles()}
    _, shown = await ask(PUT + "/{hash}", method="GET", hash=made["hash"])
    assert shown["files"] == PERMIT | {"a.test.toml": SECRET}
    assert (shown["extends"], shown["left_out"]) == (safeguards(), [])

    _, again = await ask(PUT, {"files": shown["files"]})
    assert again["hash"] == made["hash"]


async def test_a_safeguard_is_left_out_only_if_the_set_and_the_request_name_it(world: World, ask: Ask) -> None:
    _, tested = await ask(f"{PUT}?dry_run=true", {"files": PERMIT | WITHOUT})
    assert (tested["plan"]["loses"], tested["plan"]["left_out"]) == (["no-foreign-links"], ["no-foreign-links"])
    for loses in ([], ["secrets-stay"], ["no-foreign-link"]):
        status, refusal = await ask(PUT, {"files": PERMIT | WITHOUT, "loses": loses})
        assert (status, refusal["error"]) == (409, "loses_safeguards")
        assert "no-foreign-links" in refusal["message"]
        assert store.active_hash(world.db.read()) == starter_files().hash
    status, made = await ask(PUT, {"files": PERMIT | WITHOUT, "loses": ["no-foreign-links"]})
    assert (status, made["safeguards"]) == (201, len(safeguards()) - 1)
    _, shown = await ask(PUT + "/{hash}", method="GET", hash=made["hash"])
    assert shown["left_out"] == ["no-foreign-links"]
    assert "no-foreign-links" not in shown["extends"]
    weakened, act = [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {}, limit=2)]
    assert (act.action, act.detail) == (
        "policy.put",
        {
            "loses": ["no-foreign-links"],
            "left_out": ["no-foreign-links"],
            "policies": 1,
            "before": starter_files().hash,
        },
    )
    assert (weakened.action, weakened.object) == ("policy.weaken", act.object)
    assert weakened.detail == {"safeguards": ["no-foreign-links"], "before": starter_files().hash}
    await ask(PUT, {"files": PERMIT | WITHOUT | {"b.cedar": '@id("b") permit (principal, action, resource);'}})
    assert newest_entry(world).action == "policy.put"  # nothing was lost by this one


async def test_a_set_from_before_the_safeguards_is_activated_again_only_with_a_confirmation(
    world: World, ask: Ask
) -> None:
    bare = await put(world, PERMIT)  # as an earlier version stored it
    _, tested = await ask(f"{PUT}?dry_run=true", {"files": PERMIT})
    assert tested["hash"] != bare
    added = {item["id"]: item["safeguard"] for item in tested["plan"]["added"]}
    assert added == dict.fromkeys(safeguards(), True) | dict.fromkeys(roles(), False)
    status, _ = await ask(PUT, {"files": PERMIT})
    assert status == 201
    status, refusal = await ask(ACTIVATE, {}, hash=bare)
    assert (status, refusal["error"]) == (409, "loses_safeguards")
    _, planned = await ask(f"{ACTIVATE}?dry_run=true", {}, hash=bare)
    assert planned["plan"]["loses"] == sorted(safeguards())
    status, _ = await ask(ACTIVATE, {"loses": sorted(safeguards())}, hash=bare)
    assert (status, store.active_hash(world.db.read())) == (200, bare)


async def test_a_copy_of_a_safeguard_in_a_set_counts_as_the_safeguard(world: World, ask: Ask) -> None:
    copies = PERMIT | {f"{id}.cedar": text for id, text in safeguards().items()}
    bare = await put(world, copies)
    status, made = await ask(PUT, {"files": copies})
    assert (status, made["policies"], made["safeguards"]) == (201, 1, len(safeguards()))
    assert made["hash"] != bare
    status, _ = await ask(ACTIVATE, {}, hash=bare)
    assert status == 200  # it has its own copies


async def test_a_copy_of_an_earlier_text_of_a_safeguard_counts_as_the_safeguard(world: World, ask: Ask) -> None:
    texts = {**safeguards(), "said-or-recorded": (EARLIER / "said-or-recorded-1.cedar").read_text("utf-8")}
    copies = PERMIT | {"starter.cedar": "\n".join(texts.values())}
    old = await put(world, copies)  # the starter set of an earlier version, put once
    _, shown = await ask(PUT + "/{hash}", method="GET", hash=old)
    assert (shown["extends"], shown["left_out"]) == ({}, [])
    status, made = await ask(PUT, {"files": copies})
    assert (status, made["policies"], made["safeguards"]) == (201, 1, len(safeguards()))
    rules = ir.parse(store.get_active_ir(world.db.read())[1].encode())
    assert [policy for policy in rules.policies if policy.id == "said-or-recorded"] == [
        safeguard_rules()["said-or-recorded"]
    ]
    status, _ = await ask(ACTIVATE, {}, hash=old)
    assert status == 200  # it has its own copies
    status, refusal = await ask(PUT, {"files": PERMIT | LEAVES_SAID})
    assert (status, refusal["error"]) == (409, "loses_safeguards")
    # An earlier text is the set's own policy where the set leaves the safeguard out.
    own = PERMIT | LEAVES_SAID | {"b.cedar": texts["said-or-recorded"]}
    status, made = await ask(PUT, {"files": own})
    assert (status, made["policies"], made["safeguards"]) == (201, 2, len(safeguards()) - 1)


def test_each_safeguard_is_expected_by_a_test_case() -> None:
    cases = tomllib.loads(Path(__file__).with_name("safeguards.test.toml").read_text("utf-8"))["case"]
    assert {*safeguards()} <= {policy for case in cases for policy in case.get("policies", ())}


def _digest(text: str) -> str:
    """Return the digest of a policy without its comments."""
    return sha256(" ".join(re.sub(r"//.*", "", text).split()).encode()).hexdigest()


def test_the_replaced_text_of_a_safeguard_is_kept_among_the_earlier_texts() -> None:
    lines = [line.split() for line in DIGESTS.read_text("utf-8").splitlines()]
    texts = {_digest(path.read_text("utf-8")) for path in EARLIER.parent.rglob("*.cedar")}
    replaced = {name for digest, name in lines if digest not in texts}
    assert replaced == set(), "copy the text that a release had to safeguards/earlier"
    listed = {digest for digest, _ in lines}
    new = {name for name, text in safeguards().items() if _digest(text) not in listed}
    assert new == set(), f"add the digest to {DIGESTS.name}: {[_digest(safeguards()[name]) for name in new]}"


def test_each_earlier_text_differs_from_the_present_one() -> None:
    for id, earlier in earlier_rules().items():
        assert safeguard_rules()[id] not in earlier


async def test_a_later_version_can_activate_the_replaced_starter_set(
    world: World, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = starter_files().hash
    await ask(PUT, {"files": PERMIT})
    later = load(extend(PERMIT | {"later.cedar": "permit (principal, action, resource);"}, ()))
    for module in (sets, store):
        monkeypatch.setattr(module, "starter_files", lambda: later)
    status, made = await ask(ACTIVATE, {}, hash=before)
    assert (status, made["hash"]) == (200, before)


async def test_a_set_that_was_stored_after_its_activation_was_planned_is_not_activated(
    world: World, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = load(PERMIT).hash
    plan = flows.plan_activation

    def store_meanwhile(reader: Reader, hash: str) -> Plan:
        raise NotFound(f"{hash} is stored by another administrator right after this look")

    monkeypatch.setattr(flows, "plan_activation", store_meanwhile)
    await put(world, PERMIT)
    await ask(PUT, {"files": PERMIT})
    status, refusal = await ask(ACTIVATE, {}, hash=bare)
    assert (status, refusal["error"]) == (404, "not_found")
    monkeypatch.setattr(flows, "plan_activation", plan)
    status, refusal = await ask(ACTIVATE, {}, hash=bare)
    assert (status, refusal["error"]) == (409, "loses_safeguards")


async def test_another_policy_under_the_id_of_a_safeguard_is_refused_until_it_is_left_out(ask: Ask) -> None:
    other = {"b.cedar": '@id("no-foreign-links") forbid (principal, action, resource) when { false };'}
    status, refusal = await ask(f"{PUT}?dry_run=true", {"files": PERMIT | other})
    assert (status, refusal["error"]) == (422, "invalid")
    assert "'no-foreign-links' has the @id of a safeguard" in refusal["message"]
    status, tested = await ask(f"{PUT}?dry_run=true", {"files": PERMIT | other | WITHOUT})
    assert (status, tested["plan"]["loses"]) == (200, ["no-foreign-links"])
    [changed] = [change for change in tested["plan"]["changed"] if change["id"] == "no-foreign-links"]
    assert (changed["before"]["safeguard"], changed["after"]["safeguard"]) == (True, False)


@pytest.mark.parametrize("name", [LAYER + "secrets-stay.cedar", LAYER + "x.cedar"])
async def test_an_upload_with_a_file_in_the_safeguard_layer_is_refused(ask: Ask, name: str) -> None:
    status, refusal = await ask(PUT, {"files": PERMIT | {name: "forbid (principal, action, resource);"}})
    assert (status, refusal["error"]) == (422, "invalid")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[leave_out]\nno-foreign-link = "x"', "no-foreign-links"),
        ('[leave_out]\nno-foreign-links = ""', "a.safeguards.toml"),
        ('[leave_out]\nno-foreign-links = "  "', "without a reason"),
        ("[leave_out]\nno-foreign-links = true", "a.safeguards.toml"),
        ('leave_out = ["no-foreign-links"]', "a.safeguards.toml"),
        ('[leaves_out]\nno-foreign-links = "x"', "a.safeguards.toml"),
        ("[leave_out", "a.safeguards.toml"),
        ("#" * (MAX_TEXT + 1), "at most"),
    ],
)
def test_an_invalid_file_of_left_out_safeguards_is_refused(text: str, says: str) -> None:
    with pytest.raises((Invalid, Malformed)) as refused:
        read_left_out({"a.safeguards.toml": text})
    assert says in f"{refused.value.message} {refused.value.hint}"


def test_a_safeguard_that_is_left_out_twice_is_refused() -> None:
    assert read_left_out(WITHOUT) == {"no-foreign-links": WHY}
    assert read_left_out({"a.safeguards.toml": "#" * MAX_TEXT}) == {}
    with pytest.raises(Invalid, match="twice"):
        read_left_out(WITHOUT | {"b.safeguards.toml": WITHOUT["a.safeguards.toml"]})


def etags(hash: str) -> list[tuple[str, int]]:
    return [
        (f'"{hash}"', 201),
        (f'"x", "{hash}"', 201),
        ("*", 201),
        (hash, 412),
        (f'W/"{hash}"', 412),
        ('"x"', 412),
        ("", 412),
    ]


async def test_a_put_whose_if_match_header_does_not_name_the_active_set_is_refused(world: World) -> None:
    for sent, expected in etags(starter_files().hash):
        headers = [(b"content-type", b"application/json"), (b"if-match", sent.encode())]
        body = b'{"files": {"a.cedar": "permit (principal, action, resource);"}}'
        call = Call(world, "POST", PUT, {}, "", headers, body, "rq_test", ADMIN)
        assert (await answer(call)) == expected, sent
        await put(world, starter_files().files)


async def answer(call: Call) -> int:
    try:
        reply = await wire_admin.put_set(call)
    except Exception as refusal:  # noqa: BLE001 rendered as the route would
        reply = render_admin(refusal)  # type: ignore[arg-type]
    return reply.status


def contents(files: dict[str, str]) -> Contents:
    loaded = load(files)
    return Contents(loaded.hash, loaded.files, loaded.ir, loaded.policies.remote)


def test_a_plan_names_what_is_added_changed_and_removed() -> None:
    forbid: Any = '@id("{}") {}forbid (principal, action, resource) when {{ {} }};'
    before = PERMIT | {
        "same.cedar": forbid.format("same", "", "false"),
        "gone.cedar": forbid.format("gone", "", "false"),
        "milder.cedar": forbid.format("milder", "", "false"),
        "other.cedar": forbid.format("other", "", "false"),
        "s.cedarschema": "type Arguments = { a?: String };",
        "gone.cedarschema": "entity x;",
    }
    after = PERMIT | {
        "moved.cedar": before["same.cedar"],
        "new.cedar": forbid.format("new", "", "false"),
        "milder.cedar": forbid.format("milder", '@mode("watch") ', "false"),
        "other.cedar": forbid.format("other", "", "true"),
        "s.cedarschema": "type Arguments = { b?: String };",
        "new.entities.json": "[]",
    }
    plan = plan_switch(contents(extend(before, ())), contents(extend(after, ())))
    assert [(item.id, item.effect, item.mode) for item in plan.added] == [("new", "forbid", "enforce")]
    assert [(change.id, change.after.mode) for change in plan.changed] == [("milder", "watch"), ("other", "enforce")]
    assert [item.id for item in plan.removed] == ["gone"]
    assert plan.files == {
        "gone.cedarschema": "removed",
        "new.entities.json": "added",
        "s.cedarschema": "changed",
    }
    assert (plan.loses, plan.left_out) == ([], [])
