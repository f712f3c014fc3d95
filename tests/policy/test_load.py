"""A policy set is taken whole or refused with the file and the reason; no text ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiaryd.policy.model import load, safeguards, starter_files
from ostiaryd.policy.model.cedar_text import MAX_BRACKETS, MAX_FILE_BYTES, MAX_OPERATORS, MAX_POLICIES
from ostiaryd.policy.model.files import MAX_BYTES, MAX_FILES
from ostiaryd.policy.model.load import MAX_APPROVERS
from ostiaryd.policy.model.safeguards import roles
from tests.support.policy_fixtures import certification

PERMIT = "permit (principal, action, resource);"


def when(condition: str) -> str:
    return f"permit (principal, action, resource) when {{ {condition} }};"


def one(text: str, **more: str) -> dict[str, str]:
    return {"a.cedar": text} | {name.replace("_", "."): content for name, content in more.items()}


def test_the_starter_set_loads_and_its_tests_pass() -> None:
    loaded = starter_files()
    assert [policy.id for policy in loaded.ir.policies] == [
        "call-within-segment",
        "issue-token",
        "issue-own-certificate",
        "use-own-secrets",
        "read-account-tokens",
        "use-account-tokens",
        "delegate-within-segment",
        *sorted(roles(), key=lambda id: f"{id}.cedar"),
        *sorted(safeguards()),
    ]
    assert loaded.tests == 11


def test_the_safeguards_pass_their_tests() -> None:
    cases = Path(__file__).with_name("safeguards.test.toml").read_text("utf-8")
    assert load(starter_files().files | {"safeguards.test.toml": cases}).tests == 113


def test_a_policy_is_named_by_its_id_annotation_or_by_its_file_and_position() -> None:
    loaded = load({"b.cedar": PERMIT + PERMIT, "folder/a.cedar": f'@id("mine") {PERMIT}'})
    assert [policy.id for policy in loaded.ir.policies] == ["b#1", "b#2", "mine"]


def test_the_hash_of_a_set_depends_on_its_files_only() -> None:
    files = certification()
    assert load(files).hash == load(dict(reversed(files.items()))).hash
    assert load(files).hash != load(files | {"b.cedarschema": ""}).hash
    assert load(files).hash != load(files | {"certification.cedar": files["certification.cedar"] + "\n"}).hash


def test_a_policy_on_an_action_group_applies_to_the_actions_of_the_group() -> None:
    schema = """
        entity user;
        action change;
        action write in [change] appliesTo { principal: user, resource: user, context: {} };
    """
    loaded = load(
        {
            "a.cedar": 'permit (principal is user, action in Action::"change", resource);',
            "a.cedarschema": schema,
            "a.test.toml": """
                [[case]]
                name = "a write is a change"
                subject = { type = "user", id = "u" }
                action = "write"
                resource = { type = "user", id = "v" }
                expect = "allow"
            """,
        }
    )
    assert {str(uid) for action in loaded.actions.values() for uid in action.lineage} >= {'Action::"change"'}


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "1 to 200 files"),
        ({"a.cedar": ""}, "no policy"),
        ({"a.test.toml": ""}, "no policy"),
        ({"a.txt": ""}, r"the file a\.txt must end with one of"),
        ({"../a.cedar": PERMIT}, "file name"),
        ({"/a.cedar": PERMIT}, "file name"),
        ({"a//b.cedar": PERMIT}, "file name"),
        ({".hidden.cedar": PERMIT}, "file name"),
        ({"a\n.cedar": PERMIT}, "file name"),
        ({"a" * 195 + ".cedar": PERMIT}, "file name"),
        (one("permit"), r"a\.cedar: not Cedar"),
        (one("permit (principal, action, resource) when { 1 };"), r"a\.cedar"),
        (one('permit (principal, action, resource) when { principal.x == "'), r"a\.cedar:1:60: a string does not end"),
        (one(PERMIT + '\n\n  "'), r"a\.cedar:3:3: a string does not end"),
        (one("permit (principal == ?principal, action, resource);"), "template"),
        (one('permit (principal == unknown::"x", action, resource);'), r"a\.cedar: policy a#1: .*unknown"),
        (one('permit (principal, action == Action::"fly", resource);'), r"a\.cedar: policy a#1"),
        (one(PERMIT + when("principal.nothing == 1")), r"a\.cedar: policy a#2: attribute `nothing`"),
        (one(PERMIT + when('ip("1.2.3.4", 8).isIpv4()')), r"a\.cedar: policy a#2: .*Expected 1, got 2"),
        (one(PERMIT + '@id("named")' + when("principal.nothing == 1")), r"a\.cedar: policy named: attribute `nothing`"),
        (one(f'@id("x") {PERMIT} @id("x") {PERMIT}'), "two policies"),
        ({"a.cedar": f'@id("x") {PERMIT}', "b.cedar": f'@id("x") {PERMIT}'}, "two policies"),
        (one(f'@id("policy1") {PERMIT} {PERMIT}'), "the @id 'policy1' is reserved"),
        (one(f'@id("") {PERMIT}'), "1 to 200"),
        (one(f'@mode("wacth") {PERMIT}'), "@mode"),
        (one(PERMIT, a_cedarschema="entity"), "the schema: "),
        (one(PERMIT, a_cedarschema="entity Agent;"), "the schema: .*Agent"),
        (one(PERMIT, a_cedarschema='"'), r"a\.cedarschema:1:1: a string does not end"),
        (one(PERMIT) | {"a.test.toml": "case = 1"}, r"a\.test\.toml: "),
        (one(PERMIT) | {"a.test.toml": "[[case]]\nname = 'x'"}, r"a\.test\.toml: .*missing"),
        (one(PERMIT) | {"a.test.toml": "[[case]"}, r"a\.test\.toml: "),
        (one(PERMIT) | {"a.test.toml": "x = " + "[" * 5000 + "]" * 5000}, r"a\.test\.toml: "),
        (one("permit (principal, action, resource);\ud800"), "surrogate"),
    ],
)
def test_an_invalid_set_is_refused_with_the_file_and_the_reason(files: dict[str, str], why: str) -> None:
    with pytest.raises(Refused, match=why) as caught:
        load(files)
    assert isinstance(caught.value, Invalid | Malformed)
    assert len(caught.value.message) < 1000


def test_an_argument_that_a_policy_reads_must_be_declared() -> None:
    reads = one('permit (principal, action == Action::"call", resource) when { context.arguments has path };')
    load(reads | {"a.cedarschema": "type Arguments = { path?: String };"})
    unsafe = one('permit (principal, action == Action::"call", resource) when { context.arguments.path == "x" };')
    with pytest.raises(Invalid, match="path") as caught:
        load(unsafe)
    assert "type Arguments" in caught.value.hint
    with pytest.raises(Invalid, match="`argument` in context") as caught:
        load(one('permit (principal, action == Action::"call", resource) when { context.argument has path };'))
    assert "type Arguments" not in caught.value.hint
    with pytest.raises(Invalid, match="optional attribute"):
        load(unsafe | {"a.cedarschema": "type Arguments = { path?: String };"})


TEST = """
[[case]]
name = "this one"
subject = { type = "user", id = "bob" }
action = "write"
resource = { type = "record", id = "record-1" }
"""


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (TEST + 'expect = "allow"', "expected allow, got deny"),
        (TEST.replace("write", "read") + 'expect = "deny"', "expected deny, got allow by `all-read`"),
        (TEST.replace("write", "read") + 'expect = "allow"\npolicies = ["other"]', "by `other`, got it by `all-read`"),
        (TEST.replace("write", "read") + 'expect = "allow"\npolicies = []', "by no policy"),
        (TEST.replace("user", "no type") + 'expect = "deny"', "not a type"),
    ],
)
def test_a_failing_test_refuses_the_set_and_is_named(case: str, why: str) -> None:
    with pytest.raises(Invalid, match=f"more.test.toml: test `this one`: .*{why}") as caught:
        load(certification() | {"more.test.toml": case})
    assert caught.value.code == "policy_test_failed"


def test_a_policy_error_in_a_test_case_is_a_denial_and_is_reported() -> None:
    schema = "type Arguments = { amount?: Long };"
    policy = """
        permit (principal, action == Action::"call", resource);
        forbid (principal, action == Action::"call", resource)
        when { context.arguments has amount && context.arguments.amount > 5 };
    """
    case = """
        [[case]]
        name = "paying by word"
        subject = { type = "agent", id = "ag_1" }
        action = "call"
        resource = { type = "tool", id = "bank/pay" }
        context = { arguments = { amount = "five" } }
        expect = "deny"
        policies = ["a#2"]
    """
    files = {"a.cedar": policy, "a.cedarschema": schema, "a.test.toml": case}
    load(files)
    with pytest.raises(Invalid, match=r"got deny \(policy_error\) by `a#2`; `a#2`: "):
        load(files | {"a.test.toml": case.replace('"deny"', '"allow"')})


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_the_number_of_files_of_a_set_is_limited() -> None:
    files = {f"{number}.cedar": PERMIT for number in range(MAX_FILES + 1)}
    load(dict(list(files.items())[:MAX_FILES]))
    with pytest.raises(Invalid, match="201"):
        load(files)


def test_the_size_of_a_file_and_of_a_set_is_limited() -> None:
    padding = MAX_FILE_BYTES - len(PERMIT) - 2
    load(one(f"//{'x' * (padding - 1)}\n{PERMIT}"))
    with pytest.raises(Invalid, match=r"a\.cedar has"):
        load(one(f"//{'x' * padding}\n{PERMIT}"))
    with pytest.raises(Invalid, match="characters together"):
        load({f"{number}.cedar": "/" * (MAX_BYTES // 4) for number in range(5)})


def test_the_number_of_policies_of_a_set_is_limited() -> None:
    load(one(PERMIT * MAX_POLICIES))
    with pytest.raises(Invalid, match="5000 policies"):
        load(one(PERMIT * (MAX_POLICIES + 1)))
    with pytest.raises(Invalid, match="5001 policies"):
        load({"a.cedar": PERMIT * MAX_POLICIES, "b.cedar": PERMIT})


@pytest.mark.parametrize("around", ["({})", "(!{})", "if ({}) then true else true"])
def test_the_nesting_depth_of_brackets_is_limited(around: str) -> None:
    nested = "true"
    for _ in range(MAX_BRACKETS - 1):  # one is that of `when`
        nested = around.format(nested)
    load(one(when(nested)))
    with pytest.raises(Invalid, match=rf"a\.cedar:1:\d+: brackets are nested deeper than {MAX_BRACKETS}"):
        load(one(when(around.format(nested))))


@pytest.mark.parametrize(
    "operator", ["&&", "||", "+", "*", "-", "==", "if true then true else", ".a", " in", " has a &&"]
)
def test_the_length_of_a_chain_of_operators_is_limited(operator: str) -> None:
    with pytest.raises(Invalid, match=f"more than {MAX_OPERATORS} operators"):
        load(one(when("true" + f"{operator} true" * MAX_OPERATORS)))


def test_the_number_of_operators_of_a_policy_is_limited() -> None:
    flat = "[" + ", ".join(["1 == 1"] * (MAX_OPERATORS - 6)) + "].contains(true)"  # and ( when { [ . (
    load(one(when(flat)))
    with pytest.raises(Invalid, match="operators"):
        load(one(when(flat.replace("true)", "1 == 1)"))))
    load(one(when("true || false") * 500))


BOMBS = """
import itertools
from ostiary.protocol.errors import Refused
from ostiaryd.policy.model import load

def bombs(n):
    head = "permit (principal, action, resource) when {"
    for opening, closing in [("(", ")"), ("[", "]"), ("{a:", "}"), ("!", ""), ("-", ""), ("(!", ")"), ("(-", ")"),
                             ("if true then ", " else true"), ("if ", " then true else true"), ("[(", ")]"),
                             ("context.a(", ")"), ("decimal(", ")"), ("{a:[", "]}"), ('"a" like ', "")]:
        yield f"{head}{opening * n}true{closing * n}}};"
        yield f"{head}{opening * n}"
        yield f"{head}true{closing * n}}};"
    for chain in ["&& true", "|| true", "+ 1", "* 1", "- 1", ".a", '["a"]', ".contains(1)", "== 1", "is A", "in 1",
                  ", 1", ".a(1).b", "< 1", ">= 1", "has a"]:
        yield f"{head}context{chain * n}}};"
    yield f"permit (principal, action, resource) {'when { true }' * n};"
    yield f"permit (principal == {'A::' * n}A::\\"x\\", action, resource);"
    yield "permit (principal, action, resource)" + "when { \\"" + "(" * n
    yield "//" + "(" * n + "\\r" + head + "(" * n + "true" + ")" * n + "};"
    yield "@a(\\"x\\")" * n + "permit (principal, action, resource);"

def schemas(n):
    yield "entity A { x: " + "Set<" * n + "Long" + ">" * n + "};"
    yield "entity A { x: " + "{a:" * n + "Long" + "}" * n + "};"
    yield "".join(f"entity A{i} in A{i + 1};" for i in range(n)) + f"entity A{n};"
    yield "".join(f"type A{i} = A{i + 1};" for i in range(n)) + f"type A{n} = Long;"
    yield "".join(f"action a{i} in a{i + 1};" for i in range(n)) + f"action a{n};"
    yield "type A = A;"
    yield "entity A in [A]; action a in a;"

count = 0
for n in (50, 99, 100, 101, 300, 599, 600, 601, 20000):
    files = [{"a.cedar": text} for text in bombs(n)]
    files += [{"a.cedar": "permit (principal, action, resource);", "a.cedarschema": text} for text in schemas(n)]
    for one in files:
        count += 1
        try:
            load(one)
        except Refused:
            pass
print("survived", count)
"""


def test_a_deeply_nested_or_very_long_set_does_not_crash_the_process() -> None:
    """Many of them overflow the stack of the native parser when they are let through; in a thread, as in the server."""
    threaded = f"import threading\nt = threading.Thread(target=exec, args=({BOMBS!r}, {{}}))\nt.start()\nt.join()"
    run = subprocess.run(
        [sys.executable, "-c", threaded],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=Path.cwd(),
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("survived 6")


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action, resource) when { \u202econtext };",
        "\ufeff" + PERMIT,
        "permit (principal, action, resource) when { principal == \U0001f600 };",
        "permit\x00(principal, action, resource);",
        'permit (principal == Agent::"\\u{110000}", action, resource);',
    ],
)
def test_a_policy_with_invalid_characters_is_refused_with_the_file_name(text: str) -> None:
    with pytest.raises(Refused, match=r"^a\.cedar: "):
        load(one(text))


def test_a_string_in_a_policy_may_contain_any_character() -> None:
    loaded = load(one('permit (principal == Agent::"ä\u202e\\u{0}\\"\\\\", action, resource);'))
    assert loaded.ir.policies[0].principal.equals is not None
    assert loaded.ir.policies[0].principal.equals.id == 'ä\u202e\0"\\'


TWO_KEYS = "urn:ostiary:acr:two-keys"
PAYING = 'forbid (principal, action == Action::"call", resource)'


def test_a_step_up_whose_policy_reads_the_assurance_is_accepted() -> None:
    text = (
        f'@step_up("{TWO_KEYS}") {PAYING} when {{ resource.effect == "pay" }} '
        f'unless {{ context.acr == "{TWO_KEYS}" }};'
        f'@max_age("60") {PAYING} unless {{ context has auth_time && '
        'context.now.durationSince(context.auth_time) <= duration("60s") };'
    )
    assert load(one(PERMIT + text)).count == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'@step_up("{TWO_KEYS}") {PAYING} when {{ resource.effect == "pay" }};', "does not read the assurance"),
        (f'@max_age("60") {PAYING} unless {{ context.acr == "x" }};', "does not read the assurance"),
        (f'@step_up("urn:nobody:has") {PAYING} unless {{ context.acr == "urn:nobody:has" }};', "no token has"),
        (f'@step_up("{TWO_KEYS}") permit (principal, action, resource);', "`permit`"),
        (f'@max_age("soon") {PAYING} unless {{ context has auth_time }};', "`max_age`"),
        (f'@step_up("a  b") {PAYING} unless {{ context.acr == "a" }};', "`acr_values`"),
    ],
)
def test_a_step_up_that_is_invalid_or_cannot_be_met_is_refused(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        load(one(PERMIT + text))


def test_a_test_case_can_state_the_authentication_time() -> None:
    text = (
        f'@max_age("60") {PAYING} unless {{ context has auth_time && '
        'context.now.durationSince(context.auth_time) <= duration("60s") };'
    )
    case = """
        [[case]]
        name = "{name}"
        subject = {{ type = "agent", id = "ag_1" }}
        action = "call"
        resource = {{ type = "tool", id = "bank/pay" }}
        context = {{ auth_time = {at} }}
        now = 2026-01-01T12:01:00Z
        expect = "{expect}"
    """
    cases = case.format(name="in time", at="2026-01-01T12:00:00Z", expect="allow")
    cases += case.format(name="late", at="2026-01-01T11:59:59Z", expect="deny")
    assert load(one(PERMIT + text, a_test_toml=cases)).tests == 2


FORBID = 'forbid (principal, action == Action::"call", resource);'


@pytest.mark.parametrize("whom", ["person", "two"])
def test_a_forbid_with_an_ask_annotation_requests_approval(whom: str) -> None:
    assert load(one(f'{PERMIT} @ask("{whom}") {FORBID}')).policies.asks == {"a#2": whom}


@pytest.mark.parametrize(
    ("text", "why"),
    [(f"{PERMIT} {asks} {FORBID}", "@ask must be") for asks in ('@ask("three")', '@ask("")', "@ask", '@ask("Person")')]
    + [(f'@ask("person") {PERMIT}', "is on a `permit`")],
)
def test_an_ask_annotation_must_be_on_a_forbid_and_have_the_value_person_or_two(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        load(one(text))


def test_a_policy_can_state_that_an_approval_covers_a_counterpart() -> None:
    assert load(one(f'{PERMIT} @ask("two") @covers("counterpart") {FORBID}')).policies.covers == {"a#2"}
    assert load(one(f'{PERMIT} @ask("two") {FORBID}')).policies.covers == frozenset()
    for wrong, fault in (
        ('@covers("counterpart")', "is set without @ask"),
        ('@covers("task")', "is set without @ask"),
        ('@ask("person") @covers("task")', "must be `counterpart` or left out"),
        ('@ask("person") @covers', "must be `counterpart` or left out"),
    ):
        with pytest.raises(Invalid, match=f"@covers {fault}"):
            load(one(f"{PERMIT} {wrong} {FORBID}"))


def test_a_policy_can_name_its_approvers() -> None:
    asks = f'{PERMIT} @ask("person") @approvers("finance, ada") {FORBID}'
    assert load(one(asks)).policies.approvers == {"a#2": ("finance", "ada")}
    assert load(one(f'{PERMIT} @ask("person") {FORBID}')).policies.approvers == {"a#2": ()}


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ('@ask("person") @approvers("")', "@approvers must be 1 to 16 names"),
        ('@ask("person") @approvers(" , ")', "@approvers must be 1 to 16 names"),
        ('@ask("person") @approvers', "@approvers must be 1 to 16 names"),
        (f'@ask("person") @approvers("{",".join(f"p{one}" for one in range(MAX_APPROVERS + 1))}")', "must be 1 to 16"),
        ('@ask("person") @approvers("The Boss")', "the approver of policy 'a#2' contains the character `T`"),
        ('@ask("person") @approvers("ada; ben")', "the approver of policy 'a#2' contains the character `;`"),
        ('@approvers("ada")', "@approvers is set without @ask"),
        ('@approvers("")', "@approvers is set without @ask"),
    ],
)
def test_an_invalid_approvers_annotation_is_refused(named: str, fault: str) -> None:
    with pytest.raises(Invalid, match=fault):
        load(one(f"{PERMIT} {named} {FORBID}"))


def test_a_policy_can_name_the_maximum_number_of_approvers() -> None:
    named = ",".join(f"p{one}" for one in range(MAX_APPROVERS))
    [found] = load(one(f'{PERMIT} @ask("person") @approvers("{named}") {FORBID}')).policies.approvers.values()
    assert len(found) == MAX_APPROVERS


ASK_TEST = """[[case]]
name = "it asks"
subject = { type = "Agent", id = "ag_1" }
action = "call"
resource = { type = "Tool", id = "bank/pay" }
expect = "EXPECTED"
"""


@pytest.mark.parametrize(("expected", "holds"), [("ask", True), ("deny", False), ("allow", False)])
def test_a_test_case_can_expect_an_approval_request(expected: str, holds: bool) -> None:
    files = one(f'{PERMIT} @ask("person") {FORBID}') | {"a.test.toml": ASK_TEST.replace("EXPECTED", expected)}
    if holds:
        assert load(files).tests == 1
        return
    with pytest.raises(Invalid, match="got ask"):
        load(files)
