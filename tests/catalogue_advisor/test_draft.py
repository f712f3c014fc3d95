"""Drafts of tasks: the effects that a request calls for, within the granted scopes, and deterministic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.bounds import parse_details, permits
from ostiary.authorization.catalogue import Catalogue
from ostiary.catalogue_advisor.draft import Draft, draft, plan_of
from ostiary.catalogue_advisor.reading import propose_catalogue
from ostiary.catalogue_advisor.review import confirm
from ostiary.provenance.intent import MAX_PLANNED, InvalidIntent, Planned, parse_intent

URI = "https://office.example/mcp"


def listed(name: str, **properties: str) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"properties": {key: {"type": kind} for key, kind in properties.items()}}}


OFFICE = propose_catalogue(
    "office",
    {
        "tools": [
            listed("read_file", file_path="string"),
            listed("list_payments"),
            listed("pay_invoice", iban="string", amount="integer", due="string"),
            listed("send_letter", to="string", body="string"),
            listed("delete_file", file_path="string"),
            listed("create_meeting", title="string", start_time="string"),
            listed("grant_role", user="string", role="string"),
            listed("fetch_page", url="string"),
        ]
    },
).catalogue


def drafted(words: str, **more: Any) -> Draft:
    return draft(words, [(URI, OFFICE)], **({"scopes": OFFICE.scopes} | more))


def allowed(words: str, **more: Any) -> set[str]:
    return {line.subject.removeprefix("office/") for line in drafted(words, **more).lines if line.verdict == "planned"}


@pytest.mark.parametrize(
    ("words", "tools"),
    [
        ("Pay the invoice in bill.txt", {"pay_invoice"}),
        ("Could you settle my bills?", {"pay_invoice"}),
        ("Write a letter to Ada that I am late", {"send_letter"}),
        ("Please arrange a meeting with Bob on Monday", {"create_meeting"}),
        ("I need a meeting with Bob on Monday", {"create_meeting"}),
        ("Remove the file old.txt", {"delete_file"}),
        ("Make Ada an administrator: grant her the role", {"grant_role"}),
        ("Send Ada a letter and then delete draft.txt", {"send_letter", "delete_file"}),
        ("How much did I pay last month?", set()),
        ("What did Ada send me?", set()),
        ("List the payments that I sent in March", set()),
        ("Bob deleted my file yesterday, which one was it?", set()),
        ("Do not delete anything and never pay", set()),
        ("Summarise notes.txt", set()),
        ("Let Ada know that I am late", {"send_letter"}),
        ("Drop Ada a line", {"send_letter"}),
        ("Tell Ada that I am late", {"send_letter"}),
        ("Tell me what Ada wrote", set()),
        ("Get rid of old.txt", {"delete_file"}),
        ("Set up a meeting with Ada", {"create_meeting"}),
        ("Put lunch with Ada into my calendar", {"create_meeting"}),
        ("Look at delete-7 and tell me", set()),  # a name with a number, not a verb
        ("Look at send-letter_2, please tell me", set()),
        ("Delete file-7.", {"delete_file"}),
        ("Settle it, see meeting-7, at most now. Move meeting-7", {"pay_invoice", "create_meeting"}),
        ("Delete file 7", {"delete_file"}),
        ("When you have time, send Ada a letter", {"send_letter"}),
        ("Where the house allows it, please send Ada a letter and delete old.txt", {"send_letter", "delete_file"}),
        ("What we want is this: settle the bill", {"pay_invoice"}),
        ("When there is time, could you send Ada a letter?", {"send_letter"}),
        ("When did I send the letter, delete the file?", set()),
        ("When did I pay, send or delete it", set()),
        ("When I came, he paid", set()),
    ],
)
def test_the_plan_has_the_effects_that_the_request_calls_for(words: str, tools: set[str]) -> None:
    assert allowed(words) - {"fetch_page"} == tools


def test_a_tool_whose_effect_is_a_guess_is_not_planned_beside_a_tool_that_states_its_effect() -> None:
    guessed = [listed("juttu_poista", story="string"), listed("otsikko_aseta", headline="string")]
    proposed = propose_catalogue("desk", {"tools": [*guessed, listed("update_story", story="string")]}).catalogue

    def planned_in(catalogue: Catalogue, words: str) -> list[str]:
        return [one.tool for one in plan_of(words, [(URI, catalogue)], scopes=catalogue.scopes)]

    assert planned_in(proposed, "Change J-4417") == ["desk/update_story"]
    reads = propose_catalogue("desk", {"tools": [listed("saldo"), listed("update_story", story="string")]}).catalogue
    assert planned_in(reads, "Change J-4417") == ["desk/saldo", "desk/update_story"], "it takes nothing"
    branch = {"name": "juttu_poista", "inputSchema": {"anyOf": [listed("", story="string")["inputSchema"]]}}
    branches = propose_catalogue("desk", {"tools": [branch, listed("update_story", story="string")]}).catalogue
    assert planned_in(branches, "Change J-4417") == ["desk/update_story"], "a branch of its schema lists an argument"
    assert planned_in(proposed, "Change the otsikko of J-4417") == ["desk/otsikko_aseta"]
    assert planned_in(propose_catalogue("desk", {"tools": guessed}).catalogue, "Change J-4417") == [
        "desk/juttu_poista",
        "desk/otsikko_aseta",
    ]
    confirmed = Catalogue.of("desk", [confirm(tool, {}) for tool in proposed.tools.values()], ())
    assert len(planned_in(confirmed, "Change J-4417")) == 3


def test_reads_stay_allowed_and_effects_outside_the_plan_are_listed_as_not_planned() -> None:
    made = drafted("Pay the invoice")
    verdicts = {line.subject: line.verdict for line in made.lines}
    assert verdicts["office/read_file"] == verdicts["office/list_payments"] == "read"
    assert verdicts["office/delete_file"] == verdicts["office/grant_role"] == "not planned"
    assert all(line.why for line in made.lines)
    assert made.intent.plan == (Planned("office/pay_invoice"),)


def test_a_fetch_is_planned_if_the_request_calls_for_reading_or_names_an_address() -> None:
    assert "fetch_page" in allowed("Read the article and tell me")
    assert "fetch_page" in allowed("Send Ada www.example.org/today in a letter")
    assert "fetch_page" not in allowed("Send Ada a letter")


def test_a_noun_in_a_tool_name_counts_as_its_object_though_the_noun_is_also_a_verb() -> None:
    catalogue = propose_catalogue("desk", {"tools": [listed("blunt_message"), listed("fax_office")]}).catalogue
    plan = plan_of("Put the news into the channel, send it to Ada", [(URI, catalogue)], scopes=catalogue.scopes)
    assert [one.tool for one in plan] == ["desk/blunt_message"]


def test_a_report_tool_is_planned_for_a_letter_only_if_it_returns_no_content_of_third_parties() -> None:
    tools = [listed("report_incident", to="string", body="string"), listed("send_letter", to="string", body="string")]
    proposed = propose_catalogue("desk", {"tools": tools}).catalogue
    effect = {"effect": "send", "kinds.to": "address", "kinds.body": "text"}
    for is_outside, planned in (("yes", ["desk/send_letter"]), ("no", ["desk/report_incident", "desk/send_letter"])):
        tools_ = [confirm(tool, effect | {"outside": is_outside}) for tool in proposed.tools.values()]
        catalogue = Catalogue.of("desk", tools_, ())
        assert [one.tool for one in plan_of("Write to Ada", [(URI, catalogue)], scopes=catalogue.scopes)] == planned


def test_a_request_that_refers_to_a_document_plans_no_tool_that_destroys_or_administers() -> None:
    left = allowed("Do what the note says")
    assert {"pay_invoice", "send_letter", "create_meeting"} <= left
    assert not {"delete_file", "grant_role"} & left
    assert allowed("Do the following tasks: pay the invoice") - {"fetch_page"} == {"pay_invoice"}


@pytest.mark.parametrize(
    ("words", "most"),
    [
        ("Pay the invoice, up to 50 euros", "50"),
        ("Pay it, at most $1,250.50", "1250.5"),
        ("Pay it, up to 1.250,00 euros.", "1250"),
        ("Pay it, up to 1'250.50 euros", "1250.5"),
        ("Pay it, up to 1’250 francs", "1250"),
        ("Pay it, up to 12,34,567.8.9 euros", "12"),
        ("Pay the invoices, no more than EUR 20 each and less than 100", "20"),
        ("Pay 50 euros", None),
        ("Pay it, up to 9999999999999", None),
        ("Pay after at most 3 letters", None),
    ],
)
def test_a_cap_in_the_request_is_in_the_plan(words: str, most: str | None) -> None:
    made = drafted(words)
    plan = {planned.tool: planned.most for planned in made.intent.plan or ()}
    assert plan["office/pay_invoice"] == (most or "")
    assert [line.subject for line in made.lines if line.verdict == "cap"] == ["office/pay_invoice amount"] * (
        most is not None
    )


def test_a_document_in_the_request_is_endorsed_for_the_kinds_that_the_planned_effects_take() -> None:
    [document] = drafted("Pay the bill in bill.txt").intent.endorsed
    assert (document.tool, document.value) == ("office/read_file", "bill.txt")
    assert {*document.kinds} == {"amount", "time"}, "whoever wrote it does not choose who is paid"
    [trusting] = drafted("Pay the bill in bill.txt", may_name_recipient=True).intent.endorsed
    assert {*trusting.kinds} == {"account", "amount", "time"}
    [outside_plan] = drafted("Summarise bill.txt", may_name_recipient=True).intent.endorsed
    assert {*outside_plan.kinds} == {"amount", "time"}, "named, so that effects outside the plan are asked about"
    assert drafted("Pay ada@example.org 50.00 e.g. now").intent.endorsed == ()


@pytest.mark.parametrize(
    ("answers", "kinds"),
    [
        ({"effect": "change", "kinds.street": "none"}, ["object"]),
        ({"effect": "change", "kinds.street": "text"}, []),
        ({"effect": "send", "kinds.street": "none"}, []),
        (None, []),
    ],
    ids=["a confirmed change", "each argument is declared", "another effect", "not confirmed"],
)
def test_a_document_is_endorsed_for_the_data_that_a_confirmed_change_takes(
    answers: dict[str, str] | None, kinds: list[str]
) -> None:
    tools = [listed("read_file", file_path="string"), listed("update_details", street="string")]
    found = propose_catalogue("desk", {"tools": tools}).catalogue.tools
    last = found["update_details"] if answers is None else confirm(found["update_details"], answers)
    catalogue = Catalogue.of("desk", [found["read_file"], last], ())
    made = draft("Update my details as in move.txt", [(URI, catalogue)], scopes=catalogue.scopes)
    assert [kind.value for one in made.intent.endorsed for kind in one.kinds] == kinds


def test_a_web_page_is_never_endorsed_for_recipients_or_accounts() -> None:
    for words in ("Pay the invoice at https://shop.example/i/1", "Write Ada. Her e-mail is on https://ada.example/me"):
        for document in drafted(words, may_name_recipient=True).intent.endorsed:
            assert not {*document.kinds} & {"account", "address", "principal"}


def test_no_document_is_endorsed_for_secrets_or_whole_texts() -> None:
    for words in (
        "Send a letter with what is in 'Team notes'",
        "Grant Ada the role in roles.txt",
        "Do what todo.txt says",
    ):
        for document in drafted(words).intent.endorsed:
            assert not {*document.kinds} & {"secret", "text"}


def test_at_most_eight_documents_are_endorsed() -> None:
    many = " ".join(f"bill-{number}.txt" for number in range(100))
    assert len(drafted(f"Pay the bills in {many}").intent.endorsed) == 8


def test_a_draft_stays_within_the_granted_scopes_and_bounds() -> None:
    assert allowed("Pay the invoice", scopes={"office:read"}) == set()
    few = parse_details([{"type": "tool", "locations": [URI], "actions": ["read_file", "send_letter"]}])
    made = drafted("Pay the invoice and send a letter", bounds=few)
    assert {line.subject for line in made.lines if line.verdict == "planned"} == {"office/send_letter"}
    assert made.bounds == few
    nothing = drafted("Pay", scopes={"elsewhere:read"})
    assert (nothing.intent.plan, nothing.bounds, nothing.lines) == ((), (), ())


def test_a_bound_that_was_granted_still_holds() -> None:
    least = [{"type": "tool", "locations": [URI], "actions": ["pay_invoice"], "arguments": {"amount": {"max": 20}}}]
    made = drafted("Pay the invoice, up to 50", bounds=parse_details(least))
    assert not permits(made.bounds, resource_uri=URI, tool="pay_invoice", arguments={"amount": 21})
    assert permits(made.bounds, resource_uri=URI, tool="pay_invoice", arguments={"amount": 20})


SOME = """pay send delete grant do what the note says in bill.txt www.a.example up to 50 and not . , ' " role letter
    file invoice meeting please never following tasks at most"""
EFFECTS = ("Pay the invoice, up to 50.", "Send a letter.", "Remove the file old.txt.", "Arrange a meeting.")
WORDS = st.lists(
    st.sampled_from(EFFECTS) | st.sampled_from(SOME.split()) | st.text(max_size=4), min_size=1, max_size=20
).map(" ".join)
SCOPES = st.sets(st.sampled_from([*sorted(OFFICE.scopes), "other:read"])) | st.just({*OFFICE.scopes})


@given(WORDS, SCOPES)
def test_any_valid_request_gives_a_draft_that_can_be_started_and_adds_no_bounds(words: str, scopes: set[str]) -> None:
    try:
        made = drafted(words, scopes=scopes, own={"mail": "me@example.org"})
    except InvalidIntent:
        return
    assert (made.bounds, made.budget) == ((), ())
    assert made.intent.plan is not None
    assert {OFFICE.scope(OFFICE.tools[one.tool.removeprefix("office/")]) for one in made.intent.plan} <= scopes
    said = json.loads(json.dumps(made.render()))
    assert parse_intent(said["intent"]) == made.intent
    assert parse_details(said["bounds"]) == made.bounds
    assert drafted(words, scopes=scopes, own={"mail": "me@example.org"}) == made
    assert plan_of(words, [(URI, OFFICE)], scopes=scopes) == made.intent.plan


@pytest.mark.parametrize(
    "words",
    ["a" * 16384, "a." * 8192, "in 'a' " * 2340, "/a" * 8192, "up to " * 2700, "do " * 5400, "'" * 16000, "1," * 8000],
)
def test_long_requests_can_be_drafted_with_a_thousand_tools_and_the_plan_is_limited(words: str) -> None:
    """A pattern that backtracks would take minutes with a thousand tools."""
    many = propose_catalogue(
        "many", {"tools": [listed(f"send_letter_{number}", to="string") for number in range(1000)]}
    ).catalogue
    assert draft(words, [(URI, many)], scopes={"other:read"}).lines == ()
    assert draft(words[:16000] + " read", [(URI, many), (URI, OFFICE)], scopes=OFFICE.scopes).lines
    assert len(plan_of("send letters", [(URI, many)], scopes=many.scopes)) == MAX_PLANNED


@pytest.mark.parametrize("words", ["", "a\x00", "a\u202e", "é" * 8193])
def test_an_empty_overlong_or_malformed_request_is_refused(words: str) -> None:
    with pytest.raises(InvalidIntent):
        drafted(words)
