"""The pages that no other test shows, in each appearance; third-party text on them is shown as text."""

from __future__ import annotations

from urllib.parse import urlencode

import httpx2

from harness.live_server import ServerFixture
from tests.support.chromium import Chromium
from tests.support.page_client import PASSWORD
from tests.support.pictures import examine_page
from tests.support.saml_provider import IDP, idp_metadata
from tests.support.servers import live_server

__all__ = ["live_server"]
CALLBACK = "http://127.0.0.1:3030/callback"
ATTACK = "\"><script>window.attacked=1</script><img src=x onerror='window.attacked=1'>{{73421*89173}}"
"""A name of a client with markup, for attributes and for texts."""
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636 appendix B


def sign_in(live_server: ServerFixture, chromium: Chromium, name: str) -> str:
    """Open a window in which a new person with the role viewer is signed in; the URL of the server's pages."""
    live_server.api("POST", "/persons", {"name": name})
    live_server.api("POST", "/roles", {"subject": name, "role": "viewer"})
    chromium.open_window()
    chromium.goto(live_server.api("POST", f"/persons/{name}/invite", {})["url"])
    chromium.fill("#password", PASSWORD)
    chromium.fill("#repeated", PASSWORD)
    chromium.click("text=Set password")
    return str(chromium.wait_for_url("**/account")).removesuffix("/account")


def register(live_server: ServerFixture, name: str, **more: object) -> str:
    """Register a client as a stranger does; its id."""
    body = {
        "client_name": name,
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    }
    answer = httpx2.post(f"{live_server.server.url}/register", json=body | more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["client_id"])


def request(client_id: str, uri: str, **more: str) -> str:
    """The query of an authorization request."""
    query = {"response_type": "code", "client_id": client_id, "redirect_uri": CALLBACK, "resource": uri}
    return urlencode(query | {"code_challenge": CHALLENGE, "code_challenge_method": "S256"} | more)


def test_hostile_names_and_parameters_are_shown_as_text_on_each_page(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    live_server.resource("https://quiet.example/mcp")
    site = sign_in(live_server, chromium, "xena")
    client = register(live_server, ATTACK, post_logout_redirect_uris=["https://evil.example/"])
    pages = {
        "consent-attacked": f"/authorize?{request(client, 'https://quiet.example/mcp')}",
        "unknown-client": f"/authorize?{request(ATTACK, 'https://quiet.example/mcp')}",
        "login-attacked": f"/login?{urlencode({'prompt': 'login', 'login_hint': ATTACK, 'return_to': ATTACK})}",
        "device-attacked": f"/device?{urlencode({'user_code': ATTACK})}",
        "logout-asked": f"/logout?{urlencode({'client_id': client})}",
        "setup-unknown": f"/setup?{urlencode({'code': ATTACK})}",
    }
    for name, path in pages.items():
        headers = chromium.headers(site + path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, name
        assert "unsafe" not in policy, name
        assert "frame-ancestors 'none'" in policy, name
        assert chromium.evaluate("window.attacked === undefined && document.querySelector('img[src=x]') === null"), name
        assert str(73421 * 89173) not in chromium.text("main"), name
        examine_page(chromium, name)
    chromium.goto(site + pages["consent-attacked"])
    assert ATTACK in chromium.text("h1")
    chromium.click("text=Deny")


def test_a_person_connects_a_device_and_withdraws_the_consent(live_server: ServerFixture, chromium: Chromium) -> None:
    uri = "https://printer.example/mcp"
    live_server.resource(uri)
    site = sign_in(live_server, chromium, "dora")
    chromium.goto(f"{site}/consents")
    examine_page(chromium, "consents-empty")
    client = register(live_server, "Printer")
    codes = httpx2.post(
        f"{live_server.server.url}/device_authorization", data={"client_id": client, "resource": uri}
    ).json()
    chromium.goto(f"{site}/device")
    examine_page(chromium, "device")
    chromium.fill("#user_code", "BBBB-BBBB")
    chromium.click("text=Continue")
    chromium.wait_for(".alert")
    examine_page(chromium, "device-refused")
    chromium.fill("#user_code", codes["user_code"])
    chromium.click("text=Continue")
    chromium.wait_for("text=to act for you?")
    examine_page(chromium, "device-consent")
    chromium.click("text=Allow >> nth=-1")
    chromium.wait_for("text=The device is connected")
    examine_page(chromium, "device-connected")
    chromium.goto(f"{site}/consents")
    examine_page(chromium, "consents")
    chromium.click("button:has-text('Withdraw')")
    chromium.wait_for("text=You have consented to nothing")
    chromium.goto(f"{site}/logout")
    examine_page(chromium, "logout")
    chromium.click("button:has-text('Sign out')")
    chromium.wait_for("text=You are signed out")
    examine_page(chromium, "signed-out")
    chromium.goto(f"{site}/consents")
    assert chromium.text("h1") == "Sign in"


def test_error_pages_of_forms_clients_and_providers_are_shown(live_server: ServerFixture, chromium: Chromium) -> None:
    site = sign_in(live_server, chromium, "edda")
    chromium.evaluate(
        "(() => { const form = document.querySelector('form[action$=\"/account/logout\"]');"
        " form.elements.form_token.value = 'another'; form.submit() })()"
    )
    chromium.wait_for("text=This form has expired")
    examine_page(chromium, "error-form")
    assert chromium.goto(f"{site}/authorize?client_id=nobody&response_type=code") >= 400
    examine_page(chromium, "error-client")
    assert chromium.goto(f"{site}/login/with/nobody") == 404
    examine_page(chromium, "error-provider")


def test_a_denied_consent_leads_back_to_the_application_and_the_login_page_lists_each_provider(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    uri = "https://choice.example/mcp"
    live_server.resource(uri)
    site = sign_in(live_server, chromium, "cleo")
    client = register(live_server, "Reader")
    chromium.goto(f"{site}/authorize?{request(client, uri, response_mode='form_post')}")
    chromium.click("text=Deny")
    chromium.wait_for("text=Back to the application")
    examine_page(chromium, "form-post")
    live_server.api("POST", "/persons", {"name": "norole"})
    chromium.open_window()
    chromium.goto(live_server.api("POST", "/persons/norole/invite", {})["url"])
    chromium.fill("#password", PASSWORD)
    chromium.fill("#repeated", PASSWORD)
    chromium.click("text=Set password")
    chromium.wait_for_url("**/account")
    chromium.goto(f"{site}/authorize?{request(client, uri)}")
    chromium.wait_for("text=cannot act for you")
    examine_page(chromium, "refused")
    phishing_resistant = "urn:ostiary:acr:person:phr"
    chromium.goto(f"{site}/login?{urlencode({'return_to': '/account', 'acr_values': phishing_resistant})}")
    chromium.wait_for("text=Add a passkey to your account")
    examine_page(chromium, "login-too-weak")
    labels = ("Example", "A subsidiary with the longest label, Ltd")
    for number, label in enumerate(labels):
        body = {
            "name": f"idp-{number}",
            "label": label,
            "saml_metadata": idp_metadata().replace(IDP, f"{IDP}/{number}"),
        }
        live_server.api("POST", "/login-providers", body)
    chromium.open_window(script=False)
    chromium.goto(f"{site}/login")
    assert all(f"Sign in with {label}" in chromium.text() for label in labels)
    looks = "getComputedStyle(document.querySelector('form[action$=\"/login\"] button')).backgroundColor"
    assert chromium.evaluate(looks) == "rgba(0, 0, 0, 0)", "one button stands out, that of the first provider"
    examine_page(chromium, "login-providers")
    for number in range(2):
        live_server.api("DELETE", f"/login-providers/idp-{number}")
