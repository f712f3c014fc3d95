"""Tokens that are bound to a client certificate (RFC 8705) at a guard, and who may state the certificate (RFC 9440)."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import httpx2
import pytest

from harness.client_certificates import Made, self_signed
from harness.feeder import URI, Feeder
from harness.live_server import free_socket, serving
from harness.patience import PATIENCE_S
from ostiary.asgi import GuardASGI
from ostiary.authorization.claims import Confirmation
from ostiary.decision.feed import KeyFact
from ostiary.guard import Guard
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.jose import InvalidToken
from tests.guard.asgi_fixtures import ORIGIN, error

MADE, OTHER = self_signed("CN=one"), self_signed("CN=other")
RULES = {"GET /files/{path*}": "read_file"}


def bound(feeder: Feeder, made: Made = MADE, *, jkt: str | None = None) -> str:
    return feeder.token(cnf=Confirmation(jkt=jkt, certificate=made.shown.thumbprint))


def show(
    guard: Guard, token: str, certificate: ClientCertificate | None, *, scheme: str = "Bearer", proof: str | None = None
) -> Any:
    return guard.verify(authorization=f"{scheme} {token}", proof=proof, method="POST", uri=URI, certificate=certificate)


def test_a_certificate_bound_token_is_accepted_only_with_its_certificate(guard: Guard, feeder: Feeder) -> None:
    token = bound(feeder)
    for _ in range(2):  # also when the token is remembered
        assert show(guard, token, MADE.shown).principal.claims.cnf.certificate == MADE.shown.thumbprint
        with pytest.raises(InvalidToken, match="another client certificate"):
            show(guard, token, OTHER.shown)
        with pytest.raises(InvalidToken, match="none was shown"):
            show(guard, token, None)
    with pytest.raises(InvalidToken, match="not bound to a key"):
        show(guard, token, MADE.shown, scheme="DPoP")


def test_a_token_that_is_not_bound_to_a_certificate_is_refused_without_a_proof(guard: Guard, feeder: Feeder) -> None:
    with pytest.raises(InvalidToken, match="bound to a key"):
        show(guard, feeder.token(), MADE.shown)
    with pytest.raises(InvalidToken, match="not accepted"):
        show(guard, feeder.token(cnf=None), MADE.shown)
    with pytest.raises(InvalidToken, match="bound to a key"):
        show(guard, feeder.token(cnf=Confirmation()), MADE.shown)


def test_a_token_bound_to_a_key_and_a_certificate_needs_both_proofs(guard: Guard, feeder: Feeder) -> None:
    token = bound(feeder, jkt=feeder.agent_key.public.thumbprint)

    def proof() -> str:
        return feeder.proof(token, nonce=guard._proofs.nonce())

    assert show(guard, token, MADE.shown, scheme="DPoP", proof=proof()).principal.jkt is not None
    with pytest.raises(InvalidToken, match="another client certificate"):
        show(guard, token, OTHER.shown, scheme="DPoP", proof=proof())
    with pytest.raises(InvalidToken, match="none was shown"):
        show(guard, token, None, scheme="DPoP", proof=proof())
    with pytest.raises(InvalidToken, match="bound to a key"):
        show(guard, token, MADE.shown)


def test_the_revocation_of_a_certificate_ends_its_tokens(guard: Guard, feeder: Feeder) -> None:
    token = bound(feeder)
    assert show(guard, token, MADE.shown)
    feeder.say(KeyFact(OTHER.shown.thumbprint, feeder.clock() + 1_000_000_000))
    assert show(guard, token, MADE.shown)
    feeder.say(KeyFact(MADE.shown.thumbprint, feeder.clock() + 1_000_000_000))
    with pytest.raises(InvalidToken, match="was revoked"):
        show(guard, token, MADE.shown)


async def seen(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the names of the fields that reach the application."""
    names = b" ".join(sorted(name for name, _ in scope["headers"]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": names})


async def ask(
    guard: Guard, token: str, *fields: tuple[str, str], address: str, proxies: str = "10.0.0.0/8", tls: Any = None
) -> httpx2.Response:
    app = GuardASGI(seen, guard, tool=RULES, proxies=proxies)

    async def with_tls(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {"tls": tls}} if tls is not None else scope, receive, send)

    transport = httpx2.ASGITransport(with_tls, client=(address, 1))
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        return await http.get("/files/a", headers=[("authorization", f"Bearer {token}"), *fields])


@pytest.mark.parametrize("address", ["10.1.2.3", "192.0.2.1"])
async def test_the_application_receives_no_certificate_header_in_another_spelling(
    guard: Guard, feeder: Feeder, address: str
) -> None:
    fields = [("Client_Cert", OTHER.fields[0][1]), ("client-cert_chain", "x")]
    tls = {"client_cert_chain": [MADE.pem]} if address == "192.0.2.1" else None
    answer = await ask(guard, bound(feeder), *(MADE.fields if tls is None else ()), *fields, address=address, tls=tls)
    assert answer.status_code == 200, answer.text
    assert not {"client_cert", "client-cert_chain", "client-cert"} & set(answer.text.split())


async def test_the_client_certificate_is_read_from_the_header_of_a_trusted_proxy(guard: Guard, feeder: Feeder) -> None:
    token = bound(feeder)
    answer = await ask(guard, token, *MADE.fields, address="10.1.2.3")
    assert answer.status_code == 200
    assert "client-cert" not in answer.text
    assert "authorization" not in answer.text
    for fields in (OTHER.fields, []):
        refused = await ask(guard, token, *fields, address="10.1.2.3")
        assert (refused.status_code, error(refused)) == (401, "invalid_token")


@pytest.mark.parametrize(("address", "proxies"), [("11.0.0.1", "10.0.0.0/8"), ("10.1.2.3", ""), ("", "10.0.0.0/8")])
async def test_the_certificate_header_of_an_untrusted_client_is_ignored(
    guard: Guard, feeder: Feeder, address: str, proxies: str
) -> None:
    token = bound(feeder)
    forwarded = ("x-forwarded-for", "10.1.2.3")
    refused = await ask(guard, token, *MADE.fields, forwarded, address=address, proxies=proxies)
    assert (refused.status_code, error(refused)) == (401, "invalid_token")
    assert "none was shown" in refused.json()["message"]


async def test_a_malformed_certificate_header_of_a_proxy_is_refused(guard: Guard, feeder: Feeder) -> None:
    token = bound(feeder)
    for fields in ([("client-cert", ":AAAA:")], [*MADE.fields, *MADE.fields], [("client-cert-chain", "::")]):
        assert (await ask(guard, token, *fields, address="10.1.2.3")).status_code == 400


def test_a_chunked_request_with_a_certificate_in_a_trailer_is_refused(guard: Guard, feeder: Feeder) -> None:
    """uvicorn adds the fields of a trailer to the headers, and a proxy replaces only headers."""
    sock, port = free_socket()
    [(name, value)] = MADE.fields
    head = f"GET /files/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {bound(feeder)}\r\n"
    trailer = f"{name}: {value}\r\n"
    answers = []
    with serving(GuardASGI(seen, guard, tool=RULES, proxies="127.0.0.1/32"), sock):
        for request in (f"{trailer}\r\n", f"transfer-encoding: chunked\r\n\r\n0\r\n{trailer}\r\n"):
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client, client.makefile("rb") as answer:
                client.sendall((head + request).encode())
                answers.append(answer.readline())
    assert answers == [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 411 Length Required\r\n"]


async def test_a_second_client_address_in_a_chunked_request_of_a_proxy_is_refused(guard: Guard, feeder: Feeder) -> None:
    address, chunked = ("x-forwarded-for", "198.51.100.1"), ("transfer-encoding", "chunked")
    for fields, status in (([address, address], 401), ([address, chunked], 401), ([address, address, chunked], 411)):
        answer = await ask(guard, bound(feeder), *fields, address="10.1.2.3")
        assert answer.status_code == status, fields
    assert (await ask(guard, bound(feeder), address, address, chunked, address="192.0.2.1")).status_code == 401


async def test_the_client_certificate_is_read_from_the_tls_extension_of_asgi(guard: Guard, feeder: Feeder) -> None:
    token = bound(feeder)
    for made, status in ((MADE, 200), (OTHER, 401)):
        tls = {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(made.shown.der)]}
        assert (await ask(guard, token, address="192.0.2.1", tls=tls)).status_code == status
    absent: tuple[dict[str, list[str]], ...] = ({"client_cert_chain": []}, {})
    for tls in absent:
        assert (await ask(guard, token, address="192.0.2.1", tls=tls)).status_code == 401
    assert (await ask(guard, token, address="192.0.2.1", tls={"client_cert_chain": ["x"]})).status_code == 400
    shown = {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(MADE.shown.der)]}
    answer = await ask(guard, token, address="10.1.2.3", tls=shown)
    assert answer.status_code == 401, "the certificate of a proxy is not that of its client"


async def test_the_metadata_state_certificate_binding_if_a_trusted_proxy_is_configured(
    guard: Guard, feeder: Feeder
) -> None:
    for proxies, names in (("", False), ("10.0.0.0/8", True)):
        transport = httpx2.ASGITransport(GuardASGI(seen, guard, tool=RULES, proxies=proxies))
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            metadata = (await http.get("/.well-known/oauth-protected-resource")).json()
        assert metadata.get("tls_client_certificate_bound_access_tokens", False) is names
        assert metadata["dpop_bound_access_tokens_required"] is not names


def test_networks_of_proxies_must_be_networks(guard: Guard) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        GuardASGI(seen, guard, tool=RULES, proxies="everywhere")
