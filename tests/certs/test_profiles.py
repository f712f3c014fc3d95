"""Profiles and patterns of names: what each allows, at the limit and beside it, and which files are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.protocol.errors import Refused
from ostiaryd.certs.model import parse_name
from ostiaryd.certs.model.names import check_pattern, is_allowed
from ostiaryd.certs.model.profiles import BUILT_IN, LONGEST_S, MAX_PROFILES, choose_names, find_profile, parse_profiles

ALLOWED = {
    "dns:a.example": (
        ["dns:a.example"],
        ["dns:b.a.example", "dns:ba.example", "dns:a.example.org", "uri:dns:a.example"],
    ),
    "dns:*.a.example": (["dns:b.a.example", "dns:c.b.a.example"], ["dns:a.example", "dns:ba.example"]),
    "dns:*": (["dns:a.example", "dns:localhost"], ["ip:10.0.0.1", "email:a@a.example"]),
    "ip:10.0.0.0/8": (["ip:10.0.0.0", "ip:10.255.255.255"], ["ip:11.0.0.0", "ip:9.255.255.255", "ip:::a00:1"]),
    "ip:10.0.0.1": (["ip:10.0.0.1"], ["ip:10.0.0.2"]),
    "uri:spiffe://td/agent/bot": (
        ["uri:spiffe://td/agent/bot"],
        ["uri:spiffe://td/agent/bot2", "uri:spiffe://td/agent"],
    ),
    "uri:spiffe://td/*": (["uri:spiffe://td/a/b"], ["uri:spiffe://td2/a", "uri:https://td/a"]),
    "uri:https://*": (["uri:https://a.example", "uri:https://b/%41"], ["uri:http://a.example"]),
    "email:*@a.example": (["email:b@a.example"], ["email:b@c.a.example", "email:b@ba.example"]),
    "email:b@a.example": (["email:b@a.example"], ["email:c@a.example"]),
}


@pytest.mark.parametrize("pattern", ALLOWED)
def test_a_pattern_allows_its_names_and_no_others(pattern: str) -> None:
    check_pattern(pattern)
    allowed, others = ALLOWED[pattern]
    assert [is_allowed(parse_name(name), [pattern]) for name in allowed] == [True] * len(allowed)
    assert [is_allowed(parse_name(name), [pattern]) for name in others] == [False] * len(others)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "dns:",
        "dns:a b",
        "ip:10.0.0.1/8",
        "ip:x",
        "email:*",
        "other:*",
        "uri:*x",
        "uri:x:%*",
        "uri:spiffe://td",
    ],
)
def test_a_malformed_pattern_is_refused_and_a_pattern_for_all_mail_addresses_is_accepted(pattern: str) -> None:
    if pattern == "email:*":
        assert check_pattern(pattern) == pattern
    else:
        with pytest.raises(Refused):
            check_pattern(pattern)


GOOD: dict[str, Any] = {"names": ["dns:a.example"]}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown member": (GOOD | {"nmaes": []}, "unknown field `nmaes`"),
    "too short": (GOOD | {"lifetime_s": 59}, "60"),
    "too long": (GOOD | {"lifetime_s": LONGEST_S + 1}, str(LONGEST_S)),
    "unknown key type": (GOOD | {"key_types": ["P-521"]}, "the key type 'P-521' is unknown"),
    "no key type": (GOOD | {"key_types": []}, "`key_types` is empty"),
    "unknown usage": (GOOD | {"usages": ["any"]}, "usages"),
    "no names": ({}, "`names` is empty"),
    "a wrong pattern": ({"names": ["dns:a b"]}, "not a DNS name"),
    "a wrong default": (GOOD | {"default_names": ["dns:*x"]}, "not a DNS name"),
    "a SPIFFE ID and another URI as defaults": (
        {"names": ["uri:*"], "default_names": ["uri:spiffe://{trust_domain}/agent/{name}", "uri:https://a.example"]},
        "`default_names`: a certificate with a SPIFFE ID must not have another URI",
    ),
    "a default that the patterns do not allow": (
        GOOD | {"default_names": ["dns:a.example", "dns:b.example"]},
        "`default_names`: the profile `web` does not allow 'dns:b.example'",
    ),
    "a wildcard as a default without `wildcards`": (
        {"names": ["dns:*"], "default_names": ["dns:*.a.example"]},
        "`default_names`: the profile `web` does not allow wildcard names",
    ),
    "more defaults than `max_names`": (
        {"names": ["dns:*"], "max_names": 1, "default_names": ["dns:a.example", "dns:b.example"]},
        "`default_names`: the request has 2 names; `web` allows at most 1",
    ),
    "no holder": (GOOD | {"holders": []}, "`holders` is empty"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_profile_is_refused_with_an_error_that_names_the_profile(wrong: str) -> None:
    table, message = WRONG[wrong]
    with pytest.raises(Refused, match=message) as refused:
        parse_profiles({"profile": {"web": table}})
    assert "`web`" in refused.value.message


def test_defaults_within_the_patterns_are_accepted() -> None:
    tables = {
        "web": GOOD | {"default_names": ["dns:a.example"]},
        "any": {"names": ["dns:*"], "wildcards": True, "max_names": 1, "default_names": ["dns:*.{name}.example"]},
    }
    assert parse_profiles({"profile": tables})["any"].default_names == ("dns:*.{name}.example",)


def test_a_configured_profile_replaces_the_built_in_profile_of_its_name() -> None:
    profiles = parse_profiles(
        {"profile": {"server": GOOD | {"lifetime_s": 60}, "web": GOOD | {"lifetime_s": LONGEST_S}}}
    )
    assert set(profiles) == {"agent", "server", "listener", "web"}
    assert (profiles["server"].lifetime_s, profiles["agent"]) == (60, BUILT_IN[0])
    with pytest.raises(Refused) as refused:
        find_profile(profiles, "nosuch")
    assert (refused.value.code, refused.value.hint) == ("not_found", "use one of agent, listener, server, web")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"profiles": {}}, "profiles: unknown key 'profiles'"),
        ({"profile": []}, "profiles: `profile` is not a table"),
        ({"profile": dict.fromkeys(map(str, range(MAX_PROFILES + 1)), GOOD)}, f"the limit is {MAX_PROFILES}"),
    ],
    ids=["key", "no table", "too many"],
)
def test_a_document_that_is_no_table_of_profiles_is_refused_with_its_fault(
    document: dict[str, object], message: str
) -> None:
    parse_profiles({"profile": {f"p{number}": GOOD for number in range(MAX_PROFILES)}})
    with pytest.raises(Refused, match=message):
        parse_profiles(document)


def test_the_number_of_names_is_limited_and_wildcards_need_the_profiles_permission() -> None:
    [profile] = [parse_profiles({"profile": {"web": {"names": ["dns:*"], "max_names": 2}}})["web"]]
    names = [parse_name(f"dns:h{number}.example") for number in range(3)]

    def choose(*chosen: Any) -> int:
        return len(choose_names(profile, chosen, holder="bot", trust_domain="td"))

    assert (choose(*names[:1]), choose(*names[:2])) == (1, 2)
    for wrong, message in (
        ((), "needs a name"),
        (names, "at most 2"),
        ([parse_name("dns:*.a.example")], "does not allow wildcard names"),
    ):
        with pytest.raises(Refused, match=message):
            choose(*wrong)


def test_a_certificate_with_a_spiffe_id_has_no_other_uri() -> None:
    profile = parse_profiles({"profile": {"web": {"names": ["dns:*", "uri:*"]}}})["web"]

    def choose(*chosen: str) -> list[str]:
        names = choose_names(profile, tuple(parse_name(name) for name in chosen), holder="bot", trust_domain="td")
        return [str(name) for name in names]

    spiffe_id, url, other = "uri:spiffe://td/agent/bot", "uri:https://a.example", "uri:https://b.example"
    for good in ([spiffe_id], [spiffe_id, "dns:a.example"], [spiffe_id, spiffe_id], [url, other]):
        assert choose(*good) == list(dict.fromkeys(good))
    for wrong in ([spiffe_id, url], [url, spiffe_id], [spiffe_id, "uri:spiffe://td/agent/other"]):
        with pytest.raises(Refused, match="must not have another URI"):
            choose(*wrong)
