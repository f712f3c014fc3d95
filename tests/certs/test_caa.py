"""CAA records (RFC 8659): the records that permit this authority to issue, and the refusal of other orders."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ostiary.protocol.errors import Invalid
from ostiaryd.app import build_app
from ostiaryd.certs.model.acme import AcmeRefused
from ostiaryd.certs.model.caa import CaaRecord, check_caa, domains_above, parse_issuer
from ostiaryd.ground.config import load_config
from ostiaryd.ground.outbound.resolver import MAX_RECORDS
from tests.certs.acme_fixtures import AcmeStage
from tests.support.acme_client import KINDS
from tests.support.api_fixtures import reconfigured, send

ACCOUNT = "https://id.example.org/acme/account/aa_1"


def is_permitted(*records: tuple[int, str, str], is_wildcard: bool = False, method: str = "http-01") -> bool:
    try:
        check_caa(
            [CaaRecord(*record) for record in records],
            is_wildcard=is_wildcard,
            domains=frozenset({"ca.example", "other.example"}),
            account_url=ACCOUNT,
            method=method,
        )
    except AcmeRefused as refusal:
        return refusal.code != "caa"
    return True


@pytest.mark.parametrize(
    ("records", "plain", "wildcard"),
    [
        ([], True, True),
        ([(0, "issue", "ca.example")], True, True),
        ([(0, "ISSUE", " CA.Example ; ")], True, True),
        ([(0, "issue", "others.example")], False, False),
        ([(0, "issue", "others.example"), (0, "issue", "other.example")], True, True),
        ([(0, "issue", ";")], False, False),
        ([(0, "issue", "")], False, False),
        ([(0, "issue", "ca.example x")], False, False),
        ([(0, "issue", "sub.ca.example")], False, False),
        ([(0, "issue", "ca.example"), (0, "issuewild", ";")], True, False),
        ([(0, "issue", ";"), (0, "issuewild", "ca.example")], False, True),
        ([(0, "issuewild", "others.example")], True, False),
        ([(0, "iodef", "mailto:a@example.org")], True, True),
        ([(128, "iodef", "mailto:a@example.org")], True, True),
        ([(0, "future", "x"), (0, "issue", "ca.example")], True, True),
        ([(128, "future", "x"), (0, "issue", "ca.example")], False, False),
        ([(129, "future", "x")], False, False),
        ([(127, "future", "x")], True, True),
        ([(128, "issue", "ca.example")], True, True),
        ([(0, "issue", f"ca.example; accounturi={ACCOUNT}")], True, True),
        ([(0, "issue", f"ca.example; accounturi={ACCOUNT}2")], False, False),
        ([(0, "issue", "ca.example; validationmethods=dns-01,http-01")], True, True),
        ([(0, "issue", "ca.example; validationmethods=dns-01")], False, False),
        ([(0, "issue", "ca.example; unknown=1; AccountURI = " + ACCOUNT)], True, True),
        ([(0, "issue", f"ca.example; accounturi={ACCOUNT}; accounturi={ACCOUNT}")], False, False),
        ([(0, "issue", "ca.example; %%%")], False, False),
        ([(0, "issue", "ca.example; a b=c")], False, False),
    ],
)
def test_caa_records_of_a_name_permit_or_forbid_the_authority(
    records: list[tuple[int, str, str]], plain: bool, wildcard: bool
) -> None:
    assert (is_permitted(*records), is_permitted(*records, is_wildcard=True)) == (plain, wildcard)


def test_caa_records_are_looked_up_from_the_host_up_to_the_top_level_domain() -> None:
    assert domains_above("a.b.example") == ["a.b.example", "b.example", "example"]


def test_a_caa_value_is_parsed_with_its_parameters() -> None:
    issuer = parse_issuer("ca.example; a=1;b = 2 ;")
    assert issuer is not None
    assert (issuer.domain, issuer.parameters) == ("ca.example", {"a": "1", "b": "2"})


async def test_an_order_is_refused_if_the_caa_records_name_another_authority(stage: AcmeStage) -> None:
    world = reconfigured(stage.world, acme_caa_domains="CA.example")
    stage = replace(stage, world=world, app=build_app(world))
    client, zone = await stage.client(), stage.zone
    assert (await send(stage.app, "GET", "/acme/directory")).json["meta"]["caaIdentities"] == ["ca.example"]
    zone.add("open.example", "CAA", '0 issue "ca.example; validationmethods=http-01"')
    zone.add("closed.example", "CAA", '0 issue "others.example"')
    zone.add("many.example", "CAA", *(f'0 issue "ca{number}.example"' for number in range(MAX_RECORDS)))

    async def result(host: str) -> str:
        order = await client.order(f"dns:{host}")
        await client.prove(order, "http-01", stage.serve)
        await stage.validate()
        seen = (await client.post(order.headers["location"])).json
        return str(seen["status"] if "error" not in seen else seen["error"]["type"].removeprefix(KINDS))

    assert await result("none.other") == "ready"
    assert await result("www.open.example") == "ready"
    assert await result("www.closed.example") == "caa"
    assert await result("open.closed.example") == "caa"
    zone.add("open.closed.example", "CAA", '0 issue "ca.example"')
    assert await result("open.closed.example") == "ready"
    assert await result("www.many.example") == "dns"
    assert ("www.closed.example.", "CAA") in zone.asked


async def test_caa_records_are_not_looked_up_if_no_caa_domains_are_configured(stage: AcmeStage) -> None:
    stage.zone.add("closed.example", "CAA", '0 issue ";"')
    await stage.ready(await stage.client(), "dns:closed.example")
    assert "CAA" not in {kind for _, kind in stage.zone.asked}


def test_malformed_caa_domains_in_the_configuration_are_refused() -> None:
    config = load_config(environ={}, data_dir="x", acme_caa_domains="ca.example Other.example")
    assert config.acme_caa_domains == "ca.example Other.example"
    for wrong in ("ca.example,other.example", "https://ca.example", "ca..example", "x" * 64):
        with pytest.raises(Invalid, match="acme_caa_domains"):
            load_config(environ={}, data_dir="x", acme_caa_domains=wrong)
