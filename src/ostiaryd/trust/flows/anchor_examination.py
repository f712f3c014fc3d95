"""The test of a trust anchor, with the certificate of a client."""

from __future__ import annotations

from typing import NamedTuple

from ostiary.protocol.errors import NotFound
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.flows.certificates import prove_certificate
from ostiaryd.trust.flows.clients import check_active
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.certificates import (
    InvalidCertificate,
    TrustAnchor,
    check_anchor,
    check_path,
    parse_chain,
    parse_pem,
    parse_shown,
)


class AnchorExamination(NamedTuple):
    """The result of the test of a trust anchor.

    `failed`: why the anchor cannot sign certificates of clients now; empty if it can. `clients`: the number of clients
    that authenticate by a subject in a certificate of any anchor. `subject`: the subject of the tried certificate, None
    if none was tried. `refused`: why the tried certificate is not accepted; empty if it is accepted.
    """

    anchor: TrustAnchor
    failed: str
    clients: int
    subject: str | None = None
    refused: str = ""


def examine_anchor(act: Act, name: str, pem: str, agent: str) -> AnchorExamination:
    """Check a trust anchor (name or digest), and the certificate of a client against the anchor; return the result.
    Nothing is changed.

    `pem`: the certificate of a client, followed by the further certificates that the client would send, or empty.
    `agent`: name or id of the agent that would authenticate with the certificate; if empty, only the path from the
    certificate to the anchor is checked. Raises NotFound for an unknown trust anchor or agent, and InvalidCertificate
    if `pem` cannot be read, or is empty although `agent` is set.
    """
    registry.fill_entry(act, object=name[:64])
    for anchor in store.certificates.list_anchors(act.tx):
        if name in (anchor.name, anchor.digest):
            break
    else:
        raise NotFound("trust anchor not found", hint="list the trust anchors: ostiary trust-anchor list")
    registry.fill_entry(act, object=anchor.digest, name=anchor.name)
    parsed = parse_pem(anchor.certificate)
    try:
        check_anchor(parsed, now=act.now)
        failed = ""
    except InvalidCertificate as refusal:
        failed = refusal.message
    clients = store.certificates.count_subjects(act.tx)
    if not pem:
        if agent:
            raise InvalidCertificate(
                "`agent` is set without a `certificate`", hint="add the `certificate` of the agent"
            )
        return AnchorExamination(anchor, failed, clients)
    shown = parse_chain(pem)
    leaf = parse_shown(shown)
    refused = ""
    try:
        check_path(leaf, shown, [parsed], now=act.now)
        if agent:
            client = registry.find_agent(act.tx, agent)
            method = store.certificates.get_certificate_client(act.tx, client.agent_id)
            prove_certificate(act, client.agent_id, shown, method)
            check_active(act, client)
    except (InvalidCertificate, InvalidClient) as refusal:
        refused = refusal.message
    registry.fill_entry(act, object=anchor.digest, failed=failed, refused=refused)
    return AnchorExamination(anchor, failed, clients, leaf.subject.rfc4514_string(), refused)
