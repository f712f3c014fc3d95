"""Mutual TLS for OAuth (RFC 8705): trust anchors, and clients that authenticate by certificate."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from cryptography import x509

from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentState, check_name, spiffe_id
from ostiaryd.trust import store
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.certificates import (
    MAX_ADMITTED,
    MAX_ANCHORS,
    MAX_CERTIFICATES,
    SELF_SIGNED,
    TLS_CLIENT_AUTH,
    CertificateClient,
    InvalidCertificate,
    SubjectKind,
    TrustAnchor,
    check_anchor,
    check_match,
    check_path,
    check_self_signed,
    check_subject,
    check_time,
    digest_of,
    expiry_of,
    key_thumbprint,
    parse_pem,
    parse_shown,
    render_pem,
    same_names,
)


class ProvedCertificate(NamedTuple):
    """A certificate that authenticated a client: its digest (`x5t#S256`), the thumbprint of its key, and its expiry
    (`ends`) in microseconds.
    """

    thumbprint: str
    jkt: str
    ends: int
    is_second: bool
    """True if the certificate counts as a second key of the client. False for a certificate of this server's own
    authority, unless its key is also registered: an agent gets such a certificate with its first key alone.
    """


# --- trust anchors


def add_anchor(act: Act, name: str, pem: str, *, is_own: bool = False) -> TrustAnchor:
    """Add a trust anchor: an authority that may sign the certificates of clients. Return the anchor. An intermediate
    authority can be an anchor.

    `is_own`: the anchor is a root of this server's own authority. Raises InvalidCertificate if the certificate does not
    belong to an authority, is weak, expired or not yet valid; Invalid for a bad name; Conflict if the authority or the
    name is taken, or for too many anchors.
    """
    registry.fill_entry(act, object=name[:64])
    check_name(name)
    certificate = parse_pem(pem)
    check_anchor(certificate, now=act.now)
    anchor = TrustAnchor(digest_of(certificate), name, render_pem(certificate), is_own, act.now)
    registry.fill_entry(act, object=anchor.digest, name=name)
    present = store.certificates.list_anchors(act.tx)
    if same := [one for one in present if one.digest == anchor.digest]:
        raise Conflict(f"the authority is already the trust anchor `{same[0].name}`", code="anchor_taken")
    if name in {one.name for one in present}:
        raise Conflict(f"another trust anchor has the name `{name}`", code="anchor_taken")
    if len(present) >= MAX_ANCHORS:
        hint = "remove an anchor: ostiary trust-anchor remove NAME"
        raise Conflict(f"there are {MAX_ANCHORS} trust anchors, the maximum", hint=hint, code="too_many_anchors")
    store.certificates.add_anchor(act.tx, anchor)
    return anchor


def add_own_anchor(act: Act, name: str, certificate: bytes) -> None:
    """Add a root certificate (DER) of this server's own authority as trust anchor, unless it is an anchor already.
    Certificates below this root authenticate the agents that they name.
    """
    parsed = x509.load_der_x509_certificate(certificate)
    anchor = TrustAnchor(digest_of(parsed), name, render_pem(parsed), True, act.now)
    if anchor.digest not in {one.digest for one in store.certificates.list_anchors(act.tx)}:
        store.certificates.add_anchor(act.tx, anchor)


def drop_own_anchor(act: Act, name: str) -> None:
    """Remove a root of this server's own authority from the trust anchors. Do nothing if it is not a trust anchor."""
    for anchor in store.certificates.list_anchors(act.tx):
        if anchor.is_own and anchor.name == name:
            store.certificates.drop_anchor(act.tx, anchor.digest)


def remove_anchor(act: Act, name: str) -> None:
    """Remove a trust anchor (name or digest). Tokens that clients got with certificates of the anchor stay valid until
    they expire. Raises NotFound for an unknown anchor.
    """
    registry.fill_entry(act, object=name[:64])
    for anchor in store.certificates.list_anchors(act.tx):
        if name in (anchor.name, anchor.digest):
            registry.fill_entry(act, object=anchor.digest, name=anchor.name)
            store.certificates.drop_anchor(act.tx, anchor.digest)
            return
    raise NotFound("trust anchor not found", hint="list the trust anchors: ostiary trust-anchor list")


def list_admitted_certificates(reader: Reader) -> list[bytes]:
    """Return the certificates that a TLS listener accepts as trusted: trust anchors and registered client certificates,
    in DER and unparsed, so that a malformed certificate does not block the others.
    """
    return [ssl.PEM_cert_to_DER_cert(pem) for pem in store.certificates.admitted(reader)]


# --- clients


class CertificateClientView(NamedTuple):
    """The method by which an agent authenticates, and its registered certificates by digest."""

    client: CertificateClient
    certificates: dict[str, x509.Certificate]


def find_certificate_client(reader: Reader, agent: str) -> CertificateClientView:
    """Return the method by which an agent (id or name) authenticates by certificate. Raises NotFound for an unknown
    agent, and for an agent without such a method.
    """
    registered = registry.find_agent(reader, agent)
    if (client := store.certificates.get_certificate_client(reader, registered.agent_id)) is None:
        hint = f"ostiary agent mutual-tls {registered.name} --help"
        raise NotFound(f"`{registered.name}` does not authenticate by certificate", hint=hint)
    pems = store.certificates.certificates(reader, client.client)
    return CertificateClientView(client, {digest: parse_pem(pem) for digest, pem in pems.items()})


def set_certificate_client(
    act: Act, agent: str, *, subject: Mapping[str, str], certificates: Sequence[str] = (), is_bound: bool = False
) -> None:
    """Set how an agent (id or name) authenticates by certificate: by a subject in the certificate (members of RFC 8705
    section 2.1.2), or by self-signed certificates (PEM).

    `is_bound`: every token of the agent is bound to its certificate. A pending agent becomes active. If an earlier
    setting is replaced, the tokens of the agent are revoked. Raises NotFound for an unknown agent, InvalidCertificate
    for unusable subjects or certificates, Conflict for a decommissioned agent.
    """
    registered = registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=registered.agent_id, owner=registered.owner, name=registered.name)
    if registered.state is AgentState.DECOMMISSIONED:
        raise Conflict(f"`{registered.name}` is decommissioned", code="wrong_state")
    if bool(certificates) == any(subject.values()):
        hint = "use --certificate FILE, or one of --subject-dn, --dns, --uri, --ip, --email"
        raise InvalidCertificate("name either a subject or certificates of the agent, and not both", hint=hint)
    parsed = [parse_pem(pem) for pem in certificates]
    kind, value = ("", "") if parsed else check_subject(subject)
    method = SELF_SIGNED if parsed else TLS_CLIENT_AUTH
    registry.fill_entry(
        act, object=registered.agent_id, method=method, subject=value, certificates=list(map(digest_of, parsed))
    )
    before = store.certificates.get_certificate_client(act.tx, registered.agent_id)
    put_certificates(act, registered.agent_id, parsed)
    store.certificates.put_client(
        act.tx, CertificateClient(registered.agent_id, method, kind, value, is_bound, act.now)
    )
    registry.set_keyless(act, registered, True)
    if before is not None:
        registry.renew_tokens(act, registered, why="another certificate")


def remove_certificate_client(act: Act, agent: str) -> None:
    """Remove the method by which an agent (id or name) authenticates by certificate, and revoke the agent's tokens.
    Raises NotFound for an unknown agent, and for an agent without such a method.
    """
    registered = registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=registered.agent_id, owner=registered.owner, name=registered.name)
    if store.certificates.get_certificate_client(act.tx, registered.agent_id) is None:
        hint = f"show the credentials: ostiary agent show {registered.name}"
        raise NotFound(f"`{registered.name}` does not authenticate by certificate", hint=hint)
    store.certificates.drop_client(act.tx, registered.agent_id)
    registry.set_keyless(act, registered, False)
    registry.renew_tokens(act, registered, why="certificate removed")


def put_certificates(act: Act, client: str, parsed: Sequence[x509.Certificate]) -> None:
    """Replace the self-signed certificates of a client. Raises InvalidCertificate for an unusable certificate, Conflict
    if another client has registered one of these certificates or the maximum for all clients is reached.

    A certificate whose subject is that of a trust anchor is refused, because OpenSSL could take it for the anchor.
    """
    if len(parsed) > MAX_CERTIFICATES:
        raise InvalidCertificate(f"a client can register at most {MAX_CERTIFICATES} certificates")
    anchors = [parse_pem(anchor.certificate) for anchor in store.certificates.list_anchors(act.tx)]
    for certificate in parsed:
        check_self_signed(certificate, now=act.now)
        if same_names(certificate, anchors):
            raise InvalidCertificate(
                "the certificate has the same subject as a trust anchor", hint="use a certificate with another subject"
            )
        if store.certificates.holder(act.tx, digest_of(certificate)) not in (None, client):
            raise Conflict(
                "another client has registered this certificate",
                hint="generate a new certificate",
                code="certificate_taken",
            )
    of_agents, of_others = store.certificates.count_certificates(act.tx)
    count = of_agents if client.startswith("ag_") else of_others
    if count + len(parsed) - len(store.certificates.certificates(act.tx, client)) > MAX_ADMITTED:
        raise Conflict(
            f"{MAX_ADMITTED} certificates are registered, the maximum",
            hint="use `tls_client_auth`, or remove the certificates of a client that is not used",
            code="too_many_certificates",
        )
    store.certificates.set_certificates(act.tx, client, {digest_of(one): render_pem(one) for one in parsed})


# --- authentication


def prove_certificate(
    act: Act, client_id: str, shown: ClientCertificate, method: CertificateClient | None
) -> ProvedCertificate:
    """Check that a certificate authenticates a client (RFC 8705 section 2), and return the proved certificate. Raises
    InvalidClient otherwise.

    1. The client registered a method; an agent without a method may show a certificate that this server's own authority
    issued to it. 2. For `tls_client_auth`, the certificate path leads to a trust anchor, and has the subject of the
    client; for `self_signed_tls_client_auth`, the certificate is registered for the client. 3. The certificate is valid
    now, neither the certificate nor its key was revoked, and the key belongs to no other client.
    """
    try:
        certificate = parse_shown(shown)
        if method is not None and method.method == SELF_SIGNED:
            if shown.thumbprint not in store.certificates.certificates(act.tx, client_id):
                raise InvalidCertificate("unknown client, or this certificate does not authenticate the client")
            check_time(certificate, now=act.now)
            is_own = False
        else:
            is_own = _check_issued(act, client_id, certificate, shown, method)
    except InvalidCertificate as refusal:
        raise InvalidClient(f"mutual TLS: {refusal.message}", hint=refusal.hint) from None
    jkt = key_thumbprint(certificate)
    is_registered = check_key(act, client_id, jkt)
    return ProvedCertificate(shown.thumbprint, jkt, expiry_of(certificate), is_registered or not is_own)


def refuse_handshake(act: Act, why: str) -> NoReturn:
    """Record and raise the refusal (InvalidClient) of a client whose certificate a TLS listener did not accept, for the
    reason `why`.
    """
    raise InvalidClient(
        f"mutual TLS: the handshake was refused: {why[:100]}", hint="list the trust anchors: ostiary trust-anchor list"
    )


def check_key(act: Act, client_id: str, jkt: str) -> bool:
    """Check a key with which a client authenticates: return true if the key is registered for this client, and false if
    it is registered nowhere. Raises InvalidClient for a registered key of the client that was revoked or has expired,
    and for a key of another client, a person or a guard.
    """
    owner = registry.find_key_owner(act.tx, jkt)
    if owner is None:
        return False
    if owner != client_id:
        raise InvalidClient(
            "mutual TLS: the key of the certificate belongs to another client", hint="generate a key for this client"
        )
    key = registry.get_key(act.tx, jkt)
    if key is None or not key.is_active(act.now):
        raise InvalidClient(
            "mutual TLS: the registered key of the certificate was revoked or has expired", hint="generate a new key"
        )
    return True


def _check_issued(
    act: Act,
    client_id: str,
    certificate: x509.Certificate,
    shown: ClientCertificate,
    method: CertificateClient | None,
) -> bool:
    """Check a certificate that leads to a trust anchor, and return whether this server's own authority issued it.
    Raises InvalidCertificate if the certificate does not authenticate the client.

    A certificate of this server's own authority must also have a live holding. The holding ends with the certificate,
    its task or its agent, earlier than the next revocation list. The check applies under every trust anchor, because
    another anchor may have signed this server's authority.
    """
    stored = {one.digest: one for one in store.certificates.list_anchors(act.tx)}
    anchors = [parse_pem(one.certificate) for one in stored.values() if one.is_own or method is not None]
    if not anchors:
        raise InvalidCertificate("unknown client, or this certificate does not authenticate the client")
    anchor = stored[digest_of(check_path(certificate, shown, anchors, now=act.now))]
    if method is None:
        agent = registry.find_agent(act.tx, client_id)
        check_match(certificate, SubjectKind.URI, spiffe_id(registry.get_trust_domain(act.tx), agent.name))
    else:
        check_match(certificate, SubjectKind(method.kind), method.value)
    holding = registry.get_holding(act.tx, f"ct_{certificate.serial_number:032x}")
    if holding is not None and (holding.kind, holding.jkt) != ("certificate", key_thumbprint(certificate)):
        holding = None  # another authority may use the same serial number
    is_own = anchor.is_own or holding is not None
    if is_own and (holding is None or holding.agent != client_id or not holding.is_live(act.now)):
        raise InvalidCertificate(
            "the certificate was revoked, or was issued to another client", hint="request a new certificate"
        )
    return is_own


def check_shown(act: Act, shown: ClientCertificate, anchors: Sequence[x509.Certificate]) -> x509.Certificate:
    """Return the certificate of a client if it leads to one of the anchors, and this server has not ended it. Otherwise
    raises InvalidCertificate.

    If this server issued the certificate (by its own authority, or by a PKI mount of the Vault API), its end counts at
    once, before a revocation list names the certificate.
    """
    certificate = parse_shown(shown)
    check_path(certificate, shown, anchors, now=act.now)
    _check_not_ended(act, certificate)
    return certificate


def _check_not_ended(act: Act, certificate: x509.Certificate) -> None:
    for prefix in ("ct_", "mc_"):
        holding = registry.get_holding(act.tx, f"{prefix}{certificate.serial_number:032x}")
        if holding is not None and not holding.is_live(act.now):
            raise InvalidCertificate("the certificate was revoked", hint="request a new certificate")


def check_bindable(act: Act, client_id: str, shown: ClientCertificate) -> None:
    """Check that a token of a client may be bound to a certificate: the certificate is valid now, this server has not
    ended it, neither the certificate nor its key belongs to another client, and the key was not revoked. Raises
    InvalidClient otherwise.
    """
    try:
        certificate = parse_shown(shown)
        check_time(certificate, now=act.now)
        _check_not_ended(act, certificate)
    except InvalidCertificate as refusal:
        raise InvalidClient(f"mutual TLS: {refusal.message}", hint=refusal.hint) from None
    if store.certificates.holder(act.tx, shown.thumbprint) not in (None, client_id):
        raise InvalidClient("mutual TLS: the certificate belongs to another client")
    check_key(act, client_id, key_thumbprint(certificate))


def prove_second(act: Act, agent: Agent, shown: ClientCertificate) -> ProvedCertificate | None:
    """Return the proved certificate of an agent that has already authenticated by another proof; None if the
    certificate does not authenticate the agent.
    """
    method = store.certificates.get_certificate_client(act.tx, agent.agent_id)
    try:
        return prove_certificate(act, agent.agent_id, shown, method)
    except InvalidClient:
        return None
