"""Certificates as JSON under /api/v1. Times are seconds since the epoch; serial numbers are hexadecimal."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from ostiary.protocol.errors import Forbidden, NotFound, Refused, Unavailable
from ostiaryd.certs import flows, store
from ostiaryd.certs.flows.authorities import encode_certificate, encode_pem
from ostiaryd.certs.flows.holders import name_of_holder
from ostiaryd.certs.flows.revoking import find_bar
from ostiaryd.certs.model import (
    SECOND,
    Certificate,
    CertificateRequest,
    CertificateSigningRequest,
    IssuedCertificate,
    RevocationReason,
    parse_csr,
    parse_name,
    parse_serial,
    read_csr,
)
from ostiaryd.certs.model.revocation import HOLD, RevokedCertificate
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import FORBIDDEN, NOT_FOUND, PAGE, ErrorBody, PageBody, Query, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry, reason
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SELF, Caller

MAX_BATCH = 100


class NewCertificate(msgspec.Struct, forbid_unknown_fields=True):
    """A request for a certificate. `csr` is a certificate signing request in PEM, signed by the key of the
    certificate.
    """

    csr: str
    profile: str = "agent"
    agent: str | None = None
    """Name or id of the agent that will hold the certificate; if omitted, the holder is the caller."""
    person: str | None = None
    task: str | None = None
    """Id of a task of the agent; the certificate ends with the task. If omitted, the agent's standing task."""
    names: list[str] = []
    """Names such as `dns:api.example.com`, in addition to the names in `csr`."""
    lifetime: int | None = None
    """Lifetime in seconds; if omitted, the lifetime of the profile."""
    replaces: str | None = None
    """Serial number of the certificate that the new certificate renews."""


class CertificateBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 100 requests for certificates."""

    requests: Annotated[list[NewCertificate], Meta(min_length=1, max_length=MAX_BATCH)]


class Revocation(msgspec.Struct, forbid_unknown_fields=True):
    """The revocation of a certificate, or of an intermediate authority."""

    reason: RevocationReason = RevocationReason.UNSPECIFIED


class CertificateBody(TypedDict):
    """A certificate, as lists show it. `holder` is empty for the server itself.

    `state`: `live`, `on_hold` (a stop of the kill switch applies to the holder), `revoked` or `expired`.
    """

    serial: str
    state: str
    profile: str
    holder: str
    holder_id: str
    task: str | None
    names: list[str]
    key_type: str
    thumbprint: str
    authority: str
    not_before: int
    not_after: int
    issued_at: int
    revoked_at: int | None
    reason: str


class CertificateDetail(CertificateBody):
    """A certificate with its chain in PEM. `bundle`: the roots that clients must trust, in PEM."""

    certificate: str
    chain: str
    bundle: NotRequired[str]


class BatchAnswer(TypedDict):
    """The result of one request of a batch: a certificate or a refusal."""

    certificate: NotRequired[CertificateDetail]
    error: NotRequired[ErrorBody]


class BatchBody(TypedDict):
    """The results of a batch, in the order of its requests."""

    answers: list[BatchAnswer]


async def issue_certificate(call: Call) -> Reply:
    """Issue a certificate for the key that signed the request, if the profile and the policies permit.

    An agent can request certificates for itself, a person also for the person's agents, and an administrator for every
    agent and person. Without `agent` and `person`, the caller is the holder.
    """
    new = call.json(NewCertificate)
    csr = _parse(new)

    def issue(act: Act) -> CertificateDetail:
        if isinstance(csr, Refused):
            raise csr
        return _issue(act, call, new, csr)

    try:
        issued = await act_with_answers(
            call.world, lambda retry: registry.act_as(call, _action_of(new), issue, again=retry)
        )
    except Refused as refusal:
        await _count_failed_renewal(call, new, refusal)
        raise
    return reply(issued, status=201)


async def issue_batch(call: Call) -> Reply:
    """Issue certificates for up to 100 requests in one commit, with a decision for each request.

    The results are in the order of the requests: each is a certificate or a refusal.
    """
    batch = call.json(CertificateBatch)
    parsed = await asyncio.to_thread(lambda: [_parse(new) for new in batch.requests])

    def issue(act: Act) -> list[CertificateDetail | Refused]:
        results = [_issue_one(act, call, new, csr) for new, csr in zip(batch.requests, parsed, strict=True)]
        refused = sum(isinstance(one, Refused) for one in results)
        registry.fill_entry(act, object=call.caller.id, issued=len(results) - refused, refused=refused)
        return results

    results = await act_with_answers(
        call.world, lambda retry: registry.act_as(call, "cert.issue_batch", issue, again=retry)
    )
    answers: list[BatchAnswer] = []
    for new, one in zip(batch.requests, results, strict=True):
        if isinstance(one, Refused):
            await _count_failed_renewal(call, new, one)
            answers.append({"error": _describe(one)})
        else:
            answers.append({"certificate": one})
    return reply({"answers": answers})


def _describe(refusal: Refused) -> ErrorBody:
    body: ErrorBody = {"error": refusal.code, "message": refusal.message}
    if refusal.hint:
        body["hint"] = refusal.hint
    return body


def _action_of(new: NewCertificate) -> str:
    return "cert.issue" if new.replaces is None else "cert.renew"


def _parse(new: NewCertificate) -> CertificateSigningRequest | Refused:
    try:
        return parse_csr(read_csr(new.csr))
    except Refused as refusal:
        return refusal


def _issue_one(
    act: Act, call: Call, new: NewCertificate, csr: CertificateSigningRequest | Refused
) -> CertificateDetail | Refused:
    """Issue one certificate of a batch, with its own ledger entry. Return the certificate, or the refusal, which does
    not affect the other requests of the batch.
    """
    entry = Entry(at=act.now, action=_action_of(new), request=act.entry.request, network=act.entry.network)
    one = Act(act.tx, entry, act.again)
    registry.record_caller(one, call.caller)
    result: CertificateDetail | Refused
    try:
        if isinstance(csr, Refused):
            raise csr
        with act.tx.savepoint():
            result = _issue(one, call, new, csr)
    except Refused as refusal:
        if refusal.is_challenge or isinstance(refusal, Unavailable):
            raise
        one.entry.outcome, one.entry.reasons = "refused", [reason(refusal.code, refusal.message)]
        one.further_entries.clear()
        result = refusal
    act.further_entries += [one.entry, *one.further_entries]
    return result


def _issue(act: Act, call: Call, new: NewCertificate, csr: CertificateSigningRequest) -> CertificateDetail:
    """Issue a certificate to the holder that the request names, or to the caller."""
    agent, person, caller = new.agent, new.person, call.caller
    if agent is None and person is None:
        agent, person = (caller.id, None) if caller.kind == "agent" else (None, caller.id)
    else:
        check_requester(act.tx, caller, agent=agent, person=person)
    request = CertificateRequest(
        profile=new.profile,
        public_key=csr.public_key,
        names=tuple(dict.fromkeys((*csr.names, *map(parse_name, new.names)))),
        agent=agent,
        person=person,
        task=new.task,
        lifetime_s=new.lifetime,
        client_jkt=caller.jkt if caller.kind != "guard" else None,
        replaces=new.replaces,
    )
    return _show_issued(act.tx, flows.issue(act, request, config=call.world.config))


async def _count_failed_renewal(call: Call, new: NewCertificate, refusal: Refused) -> None:
    if new.replaces is None or call.caller is None or isinstance(refusal, Unavailable):
        return
    with suppress(Refused):  # the caller gets the first refusal, which says more than a second error
        serial = parse_serial(new.replaces)
        await call.world.writer.submit(
            lambda tx: store.certificates.count_failed_renewal(tx, serial, holder=call.caller.id)
        )


def check_requester(reader: Reader, caller: Caller, *, agent: str | None, person: str | None) -> None:
    """Check that the caller may request certificates for a holder. Raises NotFound for an unknown holder, Forbidden if
    the caller may not.
    """
    if caller.is_admin:
        return
    if person is not None and registry.find_person(reader, person).person_id == caller.id:
        return
    if agent is not None:
        holder = registry.find_agent(reader, agent)
        if caller.id == holder.agent_id or registry.answers_for(reader, caller.id, holder):
            return
    raise Forbidden(
        "only the holder, the owner of the holder or an administrator may request the certificate",
        hint="ask an administrator to request the certificate",
    )


async def list_certificates(call: Call) -> Reply:
    """List certificates, the newest first.

    Callers that may read everything get all certificates. Other callers get their own certificates, or the certificates
    of one of their agents, which `holder` names.
    """
    named, now, caller = call.query_one("holder"), call.world.now(), call.caller

    def read(reader: Reader, page: Page) -> list[Certificate]:
        holder = None
        if named is not None:
            holder = _holder_id(reader, named)
        elif not caller.may_read:
            holder = caller.id
        if not (caller.may_read or holder == caller.id):
            agent = registry.get_agent(reader, holder or "")
            if agent is None or not registry.answers_for(reader, caller.id, agent):
                raise Forbidden("the certificates belong to another holder")
        return store.certificates.page(reader, page, holder=holder)

    return await reply_page(
        call,
        "certificates",
        read,
        lambda reader, one: _render(reader, one, now=now),
        cursor=lambda one: one.serial,
    )


def _holder_id(reader: Reader, name: str) -> str:
    if (agent := registry.get_agent(reader, name)) is not None:
        return agent.agent_id
    try:
        return registry.find_person(reader, name).person_id
    except NotFound:
        raise NotFound(
            f"there is no agent or person {name[:100]!a}",
            hint="`ostiary agent list` and `ostiary person list` show all",
        ) from None


async def show_certificate(call: Call) -> Reply:
    """Show a certificate with its chain.

    Only the holder, the owner of the holder, and callers that may read everything can see the certificate.
    """
    reader, now = call.world.db.read(), call.world.now()
    certificate = flows.find_certificate(reader, call.params["serial"], now=now)
    if not call.caller.may_read:
        flows.check_concerned(reader, certificate, by=call.caller)
    return reply(_detail(reader, certificate, now=now))


async def revoke_certificate(call: Call) -> Reply:
    """Revoke a certificate. With the reason `keyCompromise`, its key is never certified again."""
    order = call.json(Revocation)
    certificate = await registry.act_as(
        call, "cert.revoke", lambda act: flows.revoke(act, call.params["serial"], order.reason, by=call.caller)
    )
    reader, now = call.world.db.read(), call.world.now()
    return reply(_render(reader, flows.find_certificate(reader, certificate.serial, now=now), now=now))


def _render(reader: Reader, certificate: Certificate, *, now: int) -> CertificateBody:
    revoked_at, reason = certificate.revoked_at, certificate.reason
    state = "revoked" if revoked_at is not None else "expired" if certificate.not_after <= now else "live"
    if state == "live" and (bar := _find_bar(reader, certificate, now=now)) is not None:
        state, revoked_at, reason = "on_hold" if bar.reason is HOLD else "revoked", bar.at, bar.reason.value
    return _body(reader, certificate, state=state, revoked_at=revoked_at, reason=reason)


def _body(
    reader: Reader, certificate: Certificate, *, state: str, revoked_at: int | None, reason: str
) -> CertificateBody:
    return {
        "serial": certificate.serial,
        "state": state,
        "profile": certificate.profile,
        "holder": name_of_holder(reader, certificate.holder),
        "holder_id": certificate.holder or "",
        "task": certificate.task,
        "names": [str(name) for name in certificate.names],
        "key_type": certificate.key_type,
        "thumbprint": certificate.thumbprint,
        "authority": certificate.authority,
        "not_before": certificate.not_before // SECOND,
        "not_after": certificate.not_after // SECOND,
        "issued_at": certificate.issued_at // SECOND,
        "revoked_at": None if revoked_at is None else revoked_at // SECOND,
        "reason": reason,
    }


def _find_bar(reader: Reader, certificate: Certificate, *, now: int) -> RevokedCertificate | None:
    authority = flows.find_authority(reader, certificate.authority)
    return find_bar(reader, certificate.serial, authority, certificate.holder, certificate.task, now=now)


def _detail(reader: Reader, certificate: Certificate, *, now: int) -> CertificateDetail:
    chain = flows.chain_of(reader, flows.find_authority(reader, certificate.authority))
    return {
        **_render(reader, certificate, now=now),
        "certificate": encode_certificate(certificate.der).decode(),
        "chain": encode_pem(chain).decode(),
        "bundle": encode_pem(store.authorities.trust_bundle(reader)).decode(),
    }


def _show_issued(reader: Reader, issued: IssuedCertificate) -> CertificateDetail:
    """Return the body of a certificate that the present act issues, with the state `live`."""
    return {
        **_body(reader, issued.certificate, state="live", revoked_at=None, reason=""),
        "certificate": encode_certificate(issued.certificate.der).decode(),
        "chain": encode_pem(issued.chain).decode(),
        "bundle": encode_pem(store.authorities.trust_bundle(reader)).decode(),
    }


ROUTES = (
    Route(
        "GET",
        "/api/v1/certificates",
        list_certificates,
        SELF,
        errors=(NOT_FOUND, FORBIDDEN),
        answers={200: PageBody("certificates", CertificateBody)},
        query=(Query("holder", "Name or id of the agent or person."), *PAGE),
    ),
    Route(
        "POST",
        "/api/v1/certificates",
        issue_certificate,
        SELF,
        body=NewCertificate,
        verifies_ahead=True,
        allows_people=True,
        grants=True,
        errors=(FORBIDDEN,),
        answers={201: CertificateDetail},
    ),
    Route(
        "POST",
        "/api/v1/certificates/batch",
        issue_batch,
        SELF,
        body=CertificateBatch,
        verifies_ahead=True,
        allows_people=True,
        grants=True,
        is_large=True,
        errors=(FORBIDDEN,),
        answers={200: BatchBody},
    ),
    Route(
        "GET",
        "/api/v1/certificates/{serial}",
        show_certificate,
        SELF,
        errors=(FORBIDDEN,),
        answers={200: CertificateDetail},
    ),
    Route(
        "POST",
        "/api/v1/certificates/{serial}/revoke",
        revoke_certificate,
        SELF,
        body=Revocation,
        allows_people=True,
        stops=True,
        proves_in_act=True,
        errors=(FORBIDDEN,),
        answers={200: CertificateBody},
    ),
)
