"""Login by SAML 2.0: a third-party provider, the checks of a response, signature wrapping and hostile XML."""

from __future__ import annotations

import copy
from base64 import b64decode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from zlib import decompress

import pytest
from lxml import etree
from signxml.algorithms import SignatureMethod
from starlette.types import ASGIApp

from harness.registry_fixtures import newest_entry
from ostiary.authorization.assurance import PERSON_MFA, PERSON_PHR
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.trust.engines.saml import read_metadata, read_response
from ostiaryd.trust.flows import providers as flows
from ostiaryd.trust.flows.sessions import find_session
from ostiaryd.trust.model.oidc_login import LEEWAY
from ostiaryd.trust.model.providers import GroupRule, Provider, SamlSettings
from ostiaryd.trust.model.sessions import BROWSER_COOKIE, SESSION_COOKIE, Session
from ostiaryd.trust.store.people import sessions_of
from ostiaryd.trust.wire_federation import PROVIDER_COOKIE, end_attempt
from tests.support.api_fixtures import Answer, send
from tests.support.saml_provider import (
    IDP,
    PROTOCOL,
    SAML,
    SSO,
    encode,
    idp_metadata,
    key_pair,
    samlify,
    sign,
    signed_assertion,
    unsigned,
)

SECOND = 1_000_000
ACS = "https://ostiary.example.org/login/saml/corp"
AUDIENCE = f"{ACS}/metadata"
NOW = 1_800_000_000
GOOD: dict[str, Any] = {"at": NOW, "acs": ACS, "audience": AUDIENCE, "request": "_request"}
SKEW = LEEWAY // SECOND


async def add(world: World, **changes: Any) -> Provider:
    fields: dict[str, Any] = {
        "provider_id": "lp_" + "0" * 32,
        "name": "corp",
        "label": "Corp",
        "preset": "",
        "issuer": IDP,
        "settings": SamlSettings(SSO, (key_pair(0)[1],), {}),
        "accounts": "create",
        "group_claim": "groups",
        "rules": (GroupRule("ops", role="operator"),),
        "mfa": (),
        "phishing_resistant": (),
        "created_at": 0,
    }
    made = Provider(**{**fields, **changes})
    return await act(world, "test.add", lambda act: flows.add_provider(act, made, client_secret=""))


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


class Browser:
    """A browser at the login by `corp`: its cookies, and the request that it carries to the provider."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.cookies = app, dict[str, str]()

    async def ask(self, method: str, path: str, body: str = "", *, cookies: dict[str, str] | None = None) -> Answer:
        sent = self.cookies if cookies is None else cookies
        headers = [("cookie", "; ".join(f"{name}={value}" for name, value in sent.items()))]
        headers += [("content-type", "application/x-www-form-urlencoded")] if body else []
        answer = await send(self.app, method, path, headers=headers, body=body.encode())
        for cookie in filter(None, answer.headers.get("set-cookie", "").split(", ")):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    async def begin(self, **query: str) -> str:
        answer = await self.ask("GET", f"/login/saml/corp?{urlencode(query)}")
        assert answer.status == 303
        assert "SameSite=None" in answer.headers["set-cookie"]
        return answer.headers["location"]

    async def finish(self, response: Any, state: str) -> Answer:
        """Send the response as the page of the provider does: from another site, so without `SameSite=Lax` cookies."""
        body = urlencode({"SAMLResponse": response, "RelayState": state})
        cookies = {name: value for name, value in self.cookies.items() if name.startswith(PROVIDER_COOKIE)}
        return await self.ask("POST", "/login/saml/corp", body, cookies=cookies)


def read_request(location: str) -> etree._Element:
    """Return the request in the URL to which the login sends the browser."""
    deflated = b64decode(dict(parse_qsl(urlsplit(location).query))["SAMLRequest"])
    return etree.fromstring(decompress(deflated, wbits=-15))


def request_of(world: World, browser: Browser, provider: Provider, state: str = "") -> str:
    """The id of the request that the attempt of this browser waits for."""

    class Carrier:
        headers = tuple((b"cookie", f"{name}={value}".encode()) for name, value in browser.cookies.items())

    carrier: Any = Carrier()
    carrier.world = world
    return end_attempt(carrier, provider, state).request


def state_of(location: str) -> str:
    return dict(parse_qsl(urlsplit(location).query))["RelayState"]


async def log_in(world: World, browser: Browser, provider: Provider, **changed: Any) -> Answer:
    state = state_of(await browser.begin())
    response = unsigned(**{**GOOD, "request": request_of(world, browser, provider, state), **changed})
    return await browser.finish(encode(signed_assertion(response)), state)


def session_of(world: World, browser: Browser) -> Session:
    session = find_session(world.db.read(), browser.cookies[SESSION_COOKIE], world.now())
    assert session is not None
    return session


async def test_a_third_party_saml_provider_logs_a_person_in(world: World, app: ASGIApp) -> None:
    await add(world)
    browser = Browser(app)
    metadata = await browser.ask("GET", "/login/saml/corp/metadata")
    assert metadata.headers["content-type"] == "application/samlmetadata+xml"
    location = await browser.begin(return_to="/consents", prompt="login")
    assert location.startswith(f"{SSO}&SAMLRequest=")
    with samlify(metadata.body.decode(), user={"id": "u-1", "groups": "ops"}) as idp:
        form = idp.answer(location)
    answer = await browser.finish(form["SAMLResponse"], form["RelayState"])
    assert (answer.status, answer.headers["location"]) == (303, "/consents"), answer.body
    session = session_of(world, browser)
    assert session.provider == IDP
    assert registry.list_person_roles(world.db.read(), session.person) == {"operator"}
    again = await browser.finish(form["SAMLResponse"], form["RelayState"])
    assert again.status == 403, "the attempt has ended"


async def test_a_group_that_a_person_left_ends_its_role_in_every_live_session_at_the_next_login(
    world: World, app: ASGIApp
) -> None:
    await add(world)
    first, second = Browser(app), Browser(app)
    metadata = (await first.ask("GET", "/login/saml/corp/metadata")).body.decode()
    for browser, groups, status in (
        (first, "ops", 200),
        (second, "other", 403),
        (second, "ops", 200),
        (second, "", 403),
    ):
        with samlify(metadata, user={"id": "u-1", "groups": groups}) as idp:
            form = idp.answer(await browser.begin())
        assert (await browser.finish(form["SAMLResponse"], form["RelayState"])).status == 303
        assert (await first.ask("GET", "/api/v1/agents")).status == status, groups
        assert (await browser.ask("GET", "/api/v1/agents")).status == status, groups


async def test_a_further_login_continues_the_session_of_the_same_person_and_ends_that_of_another(
    world: World, app: ASGIApp
) -> None:
    provider, browser = await add(world), Browser(app)
    await log_in(world, browser, provider)
    first = session_of(world, browser)
    assert (await log_in(world, browser, provider, id="_second")).status == 303
    assert session_of(world, browser).id == first.id, "clients and logout tokens know the session by its id"
    assert [one.id for one in sessions_of(world.db.read(), first.person, now=world.now())] == [first.id]
    await log_in(world, browser, provider, id="_third", sub="u-2")
    assert session_of(world, browser).person != first.person
    assert sessions_of(world.db.read(), first.person, now=world.now()) == []


async def test_a_demanded_assurance_level_is_sent_to_the_provider_as_authentication_contexts(
    world: World, app: ASGIApp
) -> None:
    """SAML Core section 3.3.2.2.1: the provider uses one of the classes, or answers that it cannot."""
    await add(world, mfa=("urn:idp:app", "urn:idp:<sms>"), phishing_resistant=("urn:idp:key",))
    for acr, classes in ((PERSON_MFA, ["urn:idp:app", "urn:idp:<sms>", "urn:idp:key"]), (PERSON_PHR, ["urn:idp:key"])):
        request = read_request(await Browser(app).begin(acr_values=acr))
        assert [one.text for one in request.iter(f"{SAML}AuthnContextClassRef")] == classes
        assert [child.tag for child in request] == [f"{SAML}Issuer", f"{PROTOCOL}RequestedAuthnContext"]
    request = read_request(await Browser(app).begin())
    assert [child.tag for child in request] == [f"{SAML}Issuer"]


async def test_a_saml_login_keeps_the_cookie_of_known_persons(world: World, app: ASGIApp) -> None:
    provider, browser = await add(world), Browser(app)
    browser.cookies[BROWSER_COOKIE] = "what a login with a password left"
    assert (await log_in(world, browser, provider)).status == 303
    assert browser.cookies[BROWSER_COOKIE] == "what a login with a password left"


async def test_logins_in_two_tabs_of_one_browser_do_not_end_each_other(world: World, app: ASGIApp) -> None:
    provider, browser = await add(world), Browser(app)
    tabs = [state_of(await browser.begin(return_to=f"/device?tab={number}")) for number in range(2)]
    for number, state in enumerate(tabs):
        request = request_of(world, browser, provider, state)
        response = unsigned(**{**GOOD, "request": request, "id": f"_{number}"})
        answer = await browser.finish(encode(signed_assertion(response)), state)
        assert (answer.status, answer.headers["location"]) == (303, f"/device?tab={number}"), answer.body


async def test_a_response_is_accepted_once_and_only_in_the_browser_that_began_the_login(
    world: World, app: ASGIApp
) -> None:
    provider = await add(world)
    browser, thief = Browser(app), Browser(app)
    state = dict(parse_qsl(urlsplit(await browser.begin()).query))["RelayState"]
    attempt = browser.cookies[PROVIDER_COOKIE]
    response = encode(signed_assertion(unsigned(**{**GOOD, "request": request_of(world, browser, provider)})))
    for cookie, code in (("", "no_login_in_progress"), ("another", "wrong_state")):
        if cookie:
            await thief.begin()
        assert (await thief.finish(response, state)).status == 403
        assert newest_entry(world).reasons[0].code == code
    assert (await browser.finish(response, state)).status == 303
    browser.cookies[PROVIDER_COOKIE] = attempt
    assert (await browser.finish(response, state)).status == 403
    assert newest_entry(world).reasons[0].code == "replayed"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"audience": "https://other.example"}, "the assertion is for another audience than this server"),
        ({"audience": ""}, "the assertion has no audience restriction"),
        ({"recipient": "https://other.example"}, "the assertion has no unexpired bearer confirmation for this login"),
        ({"in_response_to": "_another"}, "the assertion has no unexpired bearer confirmation for this login"),
        ({"response_to": "_another"}, "`InResponseTo` of the response is not the request of this login"),
        ({"response_to": ""}, "`InResponseTo` of the response is not the request of this login"),
        ({"destination": "https://other.example"}, "`Destination` of the response names another server"),
        ({"issuer": "https://other.example"}, "another identity provider issued the assertion (`Issuer`)"),
        (
            {"method": "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"},
            "the assertion has no unexpired bearer confirmation for this login",
        ),
        ({"confirmed_until": NOW - SKEW}, "the assertion has no unexpired bearer confirmation for this login"),
        ({"ends": NOW - SKEW}, "the assertion is not valid now (`Conditions`)"),
        ({"not_before": NOW + SKEW + 1}, "the assertion is not valid now (`Conditions`)"),
        ({"session_ends": NOW - SKEW}, "the session at the identity provider has ended"),
        (
            {"authenticated_at": NOW + SKEW + 1},
            "`AuthnInstant` of the assertion is in the future by the clock of this server",
        ),
        (
            {"format": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"},
            "`NameID` of the assertion is transient instead of persistent",
        ),
        ({"sub": ""}, "`NameID` of the assertion must have 1 to 255 characters"),
        ({"sub": "x" * 256}, "`NameID` of the assertion must have 1 to 255 characters"),
        ({"sub": "u-1 "}, "`NameID` begins or ends with whitespace"),
        ({"sub": "\nu-1"}, "`NameID` begins or ends with whitespace"),
        (
            {"qualifier": "https://other.example"},
            "`NameQualifier` of the `NameID` is not the entity id of the identity provider",
        ),
        ({"version": "1.1"}, "the version of the assertion is not 2.0"),
        ({"status": "urn:oasis:names:tc:SAML:2.0:status:Responder"}, "the identity provider refused the login"),
        (
            {"condition": '<saml:Condition xmlns:x="urn:x"/>'},
            "the assertion has the condition 'Condition', which this server does not support",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_response_that_is_not_for_this_login_is_refused(
    world: World, app: ASGIApp, changed: dict[str, Any], message: str
) -> None:
    provider, browser = await add(world), Browser(app)
    assert (await log_in(world, browser, provider, **changed)).status == 403
    assert SESSION_COOKIE not in browser.cookies
    assert (newest_entry(world).action, newest_entry(world).outcome) == ("person.login", "refused")
    assert message in newest_entry(world).reasons[0].message


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_response_is_accepted_at_the_limits_of_its_times(world: World, app: ASGIApp) -> None:
    provider = await add(world)
    for number, changed in enumerate(
        ({"confirmed_until": NOW - SKEW + 1, "ends": NOW - SKEW + 1}, {"not_before": NOW + SKEW})
    ):
        answer = await log_in(world, Browser(app), provider, id=f"_a{number}", **changed)
        assert answer.status == 303, (changed, answer.body)


def read(document: etree._Element | bytes, *, number: int = 0) -> Any:
    text = document if isinstance(document, bytes) else etree.tostring(document)
    return read_response(text, (key_pair(number)[1],))


def good() -> etree._Element:
    return signed_assertion(unsigned(**GOOD))


def evil_assertion() -> etree._Element:
    found = unsigned(**GOOD, sub="admin", id="_evil").find(f"{SAML}Assertion")
    assert found is not None
    return found


def child(response: etree._Element, name: str = "Assertion") -> etree._Element:
    found = response.find(f"{SAML}{name}")
    assert found is not None
    return found


def test_a_signed_response_and_a_signed_assertion_are_read() -> None:
    for document in (good(), sign(unsigned(**GOOD)), sign(good())):
        assert read(document).assertion.name_id == "u-1"
    strong = signed_assertion(unsigned(**GOOD), method=SignatureMethod.RSA_SHA512)
    assert read(strong).assertion.name_id == "u-1"


async def test_names_that_differ_in_whitespace_alone_are_two_persons(world: World, app: ASGIApp) -> None:
    provider, first, second = await add(world), Browser(app), Browser(app)
    assert (await log_in(world, first, provider, id="_a1", qualifier=IDP)).status == 303
    assert (await log_in(world, second, provider, id="_a2", sub="u-1\u00a0")).status == 303
    sessions = [find_session(world.db.read(), one.cookies[SESSION_COOKIE], world.now()) for one in (first, second)]
    assert len({session.person for session in sessions if session is not None}) == 2


def wrap(place: Callable[[etree._Element, etree._Element], None]) -> etree._Element:
    """A good response in which an unsigned assertion takes the place of the signed one, which `place` hides."""
    response = good()
    signed = child(response)
    place(response, signed)
    return response


def _before(response: etree._Element, signed: etree._Element) -> None:
    signed.addprevious(evil_assertion())


def _after(response: etree._Element, signed: etree._Element) -> None:
    signed.addnext(evil_assertion())


def _inside(response: etree._Element, signed: etree._Element) -> None:
    evil = evil_assertion()
    response.replace(signed, evil)
    evil.append(signed)


def _in_extensions(response: etree._Element, signed: etree._Element) -> None:
    response.replace(signed, evil_assertion())
    extensions = etree.SubElement(response, f"{PROTOCOL}Extensions")
    extensions.append(signed)


def _in_object(response: etree._Element, signed: etree._Element) -> None:
    evil = evil_assertion()
    response.replace(signed, evil)
    signature = signed.find("{http://www.w3.org/2000/09/xmldsig#}Signature")
    assert signature is not None
    child(evil, "Issuer").addnext(signature)
    holder = etree.SubElement(signature, "{http://www.w3.org/2000/09/xmldsig#}Object")
    holder.append(signed)


def _same_id(response: etree._Element, signed: etree._Element) -> None:
    evil = evil_assertion()
    evil.set("ID", "_assertion")
    signed.addprevious(evil)


def _moved_signature(response: etree._Element, signed: etree._Element) -> None:
    evil = evil_assertion()
    signature = signed.find("{http://www.w3.org/2000/09/xmldsig#}Signature")
    assert signature is not None
    child(evil, "Issuer").addnext(copy.deepcopy(signature))
    response.replace(signed, evil)


def _in_status(response: etree._Element, signed: etree._Element) -> None:
    response.replace(signed, evil_assertion())
    status = response.find(f"{PROTOCOL}Status")
    assert status is not None
    etree.SubElement(status, f"{PROTOCOL}StatusDetail").append(signed)


WRAPPINGS = (_before, _after, _inside, _in_extensions, _in_object, _same_id, _moved_signature, _in_status)


@pytest.mark.parametrize("place", WRAPPINGS)
def test_signature_wrapping_is_refused(place: Callable[[etree._Element, etree._Element], None]) -> None:
    with pytest.raises((Invalid, Malformed)):
        read(wrap(place))


def test_a_wrapped_response_is_refused() -> None:
    """The signed response within an unsigned one, whose assertion is the attacker's."""
    outer = unsigned(**GOOD, sub="admin", id="_evil")
    outer.set("ID", "_outer")
    outer.append(sign(unsigned(**GOOD)))
    with pytest.raises(Invalid):
        read(outer)


def test_a_response_that_is_unsigned_modified_or_signed_by_another_key_is_refused() -> None:
    with pytest.raises(Invalid, match="neither"):
        read(unsigned(**GOOD))
    with pytest.raises(Invalid, match="no certificate"):
        read(good(), number=1)
    changed = good()
    child(child(changed, "Assertion"), "Subject")[0].text = "admin"
    with pytest.raises(Invalid, match="no certificate"):
        read(changed)
    weak = etree.tostring(good()).replace(b"xmldsig-more#rsa-sha256", b"xmldsig#rsa-sha1")
    with pytest.raises(Invalid, match="no certificate"):
        read(weak)
    fragment = etree.tostring(good()).replace(b'URI="#_assertion"', b'URI=""')
    with pytest.raises(Invalid, match="does not sign"):
        read(fragment)
    twice = good()
    signature = child(twice).find("{http://www.w3.org/2000/09/xmldsig#}Signature")
    child(twice).append(copy.deepcopy(signature))
    with pytest.raises(Invalid, match="more than one signature"):
        read(twice)


def test_an_encrypted_assertion_is_refused_with_its_reason() -> None:
    for response in (unsigned(**GOOD), good()):
        encrypted = etree.Element(f"{SAML}EncryptedAssertion")
        response.replace(child(response), encrypted)
        encrypted.append(etree.fromstring('<x:EncryptedData xmlns:x="http://www.w3.org/2001/04/xmlenc#"/>'))
        for document in (response, sign(response)):
            with pytest.raises(Invalid, match="unencrypted"):
                read(document)


BOMB = b"".join(
    [
        b'<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">',
        *[b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)],
        b"]><r>&j;</r>",
    ]
)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (BOMB, ""),
        (b'<!DOCTYPE r SYSTEM "file:///etc/passwd"><r/>', "has a DTD"),
        (b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>', "has a DTD"),
        (b'<!DOCTYPE r [<!ENTITY x SYSTEM "http://169.254.169.254/">]><r a="&x;"/>', "is not well-formed XML in UTF-8"),
        (b"<r><!-- comment --></r>", "has a comment or a processing instruction"),
        (b"<r><?target data?></r>", "has a comment or a processing instruction"),
        (b"<!-- comment --><r/>", "has a comment or a processing instruction beside its root"),
        (b"<?target data?><r/>", "has a comment or a processing instruction beside its root"),
        (b"<r" + b"><r" * 100_000, "is not well-formed XML in UTF-8"),
        (b"<r>" + b"<a/>" * 20_000 + b"</r>", "has more than 20000 elements"),
        ('<?xml version="1.0" encoding="UTF-16"?><r/>'.encode("utf-16"), "is not well-formed XML in UTF-8"),
        (b"\xff\xfe", "is not well-formed XML in UTF-8"),
        (b"", "is not well-formed XML in UTF-8"),
        (b"<r>" + b"<a/>" * 19_999 + b"</r>", "is not a SAML 2.0 response"),
        (b"<r/>", "is not a SAML 2.0 response"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_hostile_xml_is_refused(document: bytes, fault: str) -> None:
    with pytest.raises(Malformed) as refused:
        read(document)
    assert refused.value.message.endswith(fault)
    with pytest.raises((Malformed, Invalid)):
        read_metadata(document)


def test_a_response_with_a_comment_in_a_name_is_refused() -> None:
    text = etree.tostring(good()).replace(b">u-1<", b">u-1<!-- -->.evil<")
    with pytest.raises(Malformed, match="comment"):
        read(text)


def test_saml_metadata_yield_the_sso_url_and_the_certificates() -> None:
    found = read_metadata(idp_metadata(certificates=2).encode())
    assert (found.entity_id, found.sso_url, found.certificates) == (IDP, SSO, (key_pair(0)[1], key_pair(1)[1]))
    with pytest.raises(Invalid, match="describe 0 identity providers"):
        read_metadata(b'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="x"/>')


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_hostile_or_undecodable_saml_response_is_refused(world: World, app: ASGIApp) -> None:
    await add(world)
    browser = Browser(app)
    state = dict(parse_qsl(urlsplit(await browser.begin()).query))["RelayState"]
    for document in (encode(BOMB), encode(b"<r/>"), "no base64!", "n\u00f6 base64", ""):
        answer = await browser.finish(document, state)
        assert answer.status == 403, document[:20]
    assert SESSION_COOKIE not in browser.cookies
