"""Mutual TLS for administrators: trust anchors, and agents that authenticate by certificate (RFC 8705)."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import CONFLICT, EmptyBody, Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import flows
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.certificates import TrustAnchor, expiry_of, parse_pem


class NewAnchor(msgspec.Struct, forbid_unknown_fields=True):
    """An authority to trust: its name, and its certificate in PEM."""

    name: str
    certificate: str


class AnchorTrial(msgspec.Struct, forbid_unknown_fields=True):
    """A client certificate in PEM with its chain, to try against a trust anchor, and the agent that would authenticate
    with it. Both may be empty.
    """

    certificate: str = ""
    agent: str = ""


class MutualTls(msgspec.Struct, forbid_unknown_fields=True):
    """The method by which an agent authenticates by certificate: exactly one subject (RFC 8705 section 2.1.2), or
    self-signed certificates in PEM.
    """

    tls_client_auth_subject_dn: str = ""
    tls_client_auth_san_dns: str = ""
    tls_client_auth_san_uri: str = ""
    tls_client_auth_san_ip: str = ""
    tls_client_auth_san_email: str = ""
    certificates: list[str] = []
    tls_client_certificate_bound_access_tokens: bool = False


class AnchorRow(TypedDict):
    """A trust anchor. `thumbprint` is its `x5t#S256`; times are in seconds since the epoch."""

    name: str
    thumbprint: str
    subject: str
    is_own: bool
    added_at: int
    not_after: int


class TriedCertificate(TypedDict):
    """The certificate that was tried. `refused` is the reason why the server would not accept it; null if it would."""

    subject: str
    refused: str | None


class AnchorTest(TypedDict):
    """The result of the test of a trust anchor. `failed`: why the anchor cannot sign certificates of clients now.
    `clients`: the number of agents that authenticate by a subject in a certificate of any trust anchor.
    """

    name: str
    not_after: int
    failed: str | None
    clients: int
    certificate: TriedCertificate | None


class AnchorsBody(TypedDict):
    """All trust anchors."""

    anchors: list[AnchorRow]


class CertificateRow(TypedDict):
    """A registered certificate of an agent."""

    thumbprint: str
    subject: str
    not_after: int


class MutualTlsBody(TypedDict):
    """The method by which an agent authenticates by certificate. `subject` has one member of RFC 8705 section 2.1.2, or
    is empty for registered certificates.
    """

    agent_id: str
    token_endpoint_auth_method: str
    subject: dict[str, str]
    certificates: list[CertificateRow]
    tls_client_certificate_bound_access_tokens: bool
    since: int


async def list_anchors(call: Call) -> Reply:
    """List the authorities whose certificates authenticate clients."""
    shown: AnchorsBody = {"anchors": [_render(anchor) for anchor in flows.list_anchors(call.world.db.read())]}
    return reply(shown)


async def add_anchor(call: Call) -> Reply:
    """Add a trust anchor: an authority that may sign the certificates of clients."""
    new = call.json(NewAnchor)
    anchor = await act_as(call, "anchor.add", lambda act: flows.add_anchor(act, new.name, new.certificate))
    return reply(_render(anchor), status=201)


async def remove_anchor(call: Call) -> Reply:
    """Remove a trust anchor: clients with certificates of the authority get no further tokens."""
    await act_as(call, "anchor.remove", lambda act: flows.remove_anchor(act, call.params["name"]))
    return await list_anchors(call)


async def try_anchor(call: Call) -> Reply:
    """Check a trust anchor, and whether the server would accept a certificate by it; nothing is changed.

    With `agent`, the whole authentication of that agent by the certificate is checked, except the TLS handshake.
    """
    trial, name = call.json(AnchorTrial), call.params["name"]
    examined = await act_as(
        call, "anchor.test", lambda act: flows.examine_anchor(act, name, trial.certificate, trial.agent)
    )
    tested: AnchorTest = {
        "name": examined.anchor.name,
        "not_after": _render(examined.anchor)["not_after"],
        "failed": examined.failed or None,
        "clients": examined.clients,
        "certificate": None
        if examined.subject is None
        else {"subject": examined.subject, "refused": examined.refused or None},
    }
    return reply(tested, headers=[NO_STORE])


def _render(anchor: TrustAnchor) -> AnchorRow:
    certificate = parse_pem(anchor.certificate)
    return {
        "name": anchor.name,
        "thumbprint": anchor.digest,
        "subject": certificate.subject.rfc4514_string(),
        "is_own": anchor.is_own,
        "added_at": anchor.added_at // SECOND,
        "not_after": expiry_of(certificate) // SECOND - 1,
    }


async def show_mutual_tls(call: Call) -> Reply:
    """Show the method by which an agent authenticates by certificate."""
    client, certificates = flows.find_certificate_client(call.world.db.read(), call.params["name"])
    shown: MutualTlsBody = {
        "agent_id": client.client,
        "token_endpoint_auth_method": client.method,
        "subject": {client.kind: client.value} if client.kind else {},
        "certificates": [
            {
                "thumbprint": thumbprint,
                "subject": certificate.subject.rfc4514_string(),
                "not_after": expiry_of(certificate) // SECOND - 1,
            }
            for thumbprint, certificate in certificates.items()
        ],
        "tls_client_certificate_bound_access_tokens": client.is_bound,
        "since": client.since // SECOND,
    }
    return reply(shown)


async def set_mutual_tls(call: Call) -> Reply:
    """Let an agent authenticate by certificate (RFC 8705), and replace earlier settings.

    A pending agent becomes active. A change revokes the tokens of the agent.
    """
    new = call.json(MutualTls)
    subject = {name: getattr(new, name) for name in new.__struct_fields__ if name.startswith("tls_client_auth_")}
    await act_as(
        call,
        "agent.mutual_tls",
        lambda act: flows.set_certificate_client(
            act,
            call.params["name"],
            subject=subject,
            certificates=new.certificates,
            is_bound=new.tls_client_certificate_bound_access_tokens,
        ),
    )
    return await show_mutual_tls(call)


async def remove_mutual_tls(call: Call) -> Reply:
    """Stop an agent from authenticating by certificate, and revoke its tokens."""
    await act_as(call, "agent.mutual_tls", lambda act: flows.remove_certificate_client(act, call.params["name"]))
    return reply({})


_ANCHORS, _MUTUAL_TLS = "/api/v1/trust-anchors", "/api/v1/agents/{name}/mutual-tls"
ROUTES = (
    Route("GET", _ANCHORS, list_anchors, READ, answers={200: AnchorsBody}),
    Route("POST", _ANCHORS, add_anchor, ADMIN, body=NewAnchor, errors=(CONFLICT,), answers={201: AnchorRow}),
    Route("POST", _ANCHORS + "/{name}/test", try_anchor, ADMIN, body=AnchorTrial, answers={200: AnchorTest}),
    Route("DELETE", _ANCHORS + "/{name}", remove_anchor, ADMIN, stops=True, answers={200: AnchorsBody}),
    Route("GET", _MUTUAL_TLS, show_mutual_tls, READ, answers={200: MutualTlsBody}),
    Route("PUT", _MUTUAL_TLS, set_mutual_tls, ADMIN, body=MutualTls, answers={200: MutualTlsBody}),
    Route("DELETE", _MUTUAL_TLS, remove_mutual_tls, ADMIN, stops=True, answers={200: EmptyBody}),
)
