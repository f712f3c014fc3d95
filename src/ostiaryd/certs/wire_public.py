"""Public resources of the certificate authority, without authentication: certificates, revocation lists, and OCSP.

`/ca/bundle.pem` is the trust bundle. Revocation lists are in DER (RFC 5280). OCSP accepts GET and POST (RFC 6960).
"""

from __future__ import annotations

from contextlib import suppress

from ostiary.protocol.errors import Malformed, NotFound, Refused
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import encode_pem, find_authority
from ostiaryd.certs.flows.status import MALFORMED, OcspResponder, RevocationLists
from ostiaryd.certs.model.revocation import OCSP_REQUEST, OCSP_RESPONSE, decode_ocsp_path
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, UnsupportedMediaType
from ostiaryd.ground.http.routes import NOT_FOUND, Content, Route
from ostiaryd.ledger.flows import record_refusal

CRL, CERTIFICATE, BUNDLE = "application/pkix-crl", "application/pkix-cert", "application/pem-certificate-chain"


async def answer_ocsp(call: Call) -> Reply:
    """Answer an OCSP request about one certificate, sent in the body in DER (RFC 6960).

    A request that cannot be read gets the status `malformedRequest` and is recorded in the ledger. A request about a
    certificate of another issuer gets `unauthorized`.
    """
    call.expect(OCSP_REQUEST)
    return await _ocsp_reply(call, call.body)


async def answer_ocsp_get(call: Call) -> Reply:
    """Answer an OCSP request about one certificate, sent in the path in Base64 (RFC 6960 appendix A.1)."""
    return await _ocsp_reply(call, decode_ocsp_path(call.params["request"]))


async def _ocsp_reply(call: Call, request: bytes) -> Reply:
    try:
        answer = call.world.get_singleton(OcspResponder).answer(request)
    except Malformed as refusal:
        answer = MALFORMED
        with suppress(Refused):
            await record_refusal(
                call.world, "cert.status", refusal, object="", request=call.request_id, network=call.network
            )
    return Reply(200, answer, OCSP_RESPONSE, [NO_STORE])


async def show_bundle(call: Call) -> Reply:
    """Return the trust bundle: the certificates of all roots that clients must trust, in PEM, the active root first."""
    bundle = encode_pem(store.authorities.trust_bundle(call.world.db.read()))
    if not bundle:
        raise NotFound(
            "this server has no certificate authority yet", hint="create an authority with `ostiary ca init`"
        )
    return Reply(200, bundle, BUNDLE, [NO_STORE])


async def show_authority_certificate(call: Call) -> Reply:
    """Return the certificate of an authority in DER."""
    authority = find_authority(call.world.db.read(), call.params["id"])
    if not authority.certificate:
        raise NotFound(
            "the authority has no certificate yet", hint="install the certificate: ostiary ca import CHAIN.pem"
        )
    return Reply(200, authority.certificate, CERTIFICATE, [NO_STORE])


async def show_crl(call: Call) -> Reply:
    """Return the complete revocation list of an authority in DER."""
    der = await call.world.get_singleton(RevocationLists).get(call.params["id"], None)
    return Reply(200, der, CRL, [NO_STORE])


async def show_crl_partition(call: Call) -> Reply:
    """Return one partition of an authority's revocation list in DER.

    Each certificate contains the URL of its partition.
    """
    shard = call.params["shard"]
    number = int(shard) if shard.isascii() and shard.isdigit() and len(shard) <= 3 else -1
    der = await call.world.get_singleton(RevocationLists).get(call.params["id"], number)
    return Reply(200, der, CRL, [NO_STORE])


_OCSP = Content(media_types=(OCSP_RESPONSE,))
ROUTES = (
    Route(
        "POST",
        "/ocsp",
        answer_ocsp,
        "",
        body=Content(media_types=(OCSP_REQUEST,)),
        bounds_body=True,
        errors=(UnsupportedMediaType("the content type `text/plain` is not supported", hint=f"send {OCSP_REQUEST}"),),
        answers={200: _OCSP},
    ),
    Route("GET", "/ocsp/{request:path}", answer_ocsp_get, "", answers={200: _OCSP}),
    Route("GET", "/ca/bundle.pem", show_bundle, "", errors=(NOT_FOUND,), answers={200: Content(media_types=(BUNDLE,))}),
    Route(
        "GET",
        "/ca/{id}.crt",
        show_authority_certificate,
        "",
        errors=(NOT_FOUND,),
        answers={200: Content(media_types=(CERTIFICATE,))},
    ),
    Route("GET", "/ca/{id}/crl", show_crl, "", errors=(NOT_FOUND,), answers={200: Content(media_types=(CRL,))}),
    Route(
        "GET",
        "/ca/{id}/crl/{shard}",
        show_crl_partition,
        "",
        errors=(NOT_FOUND,),
        answers={200: Content(media_types=(CRL,))},
    ),
)
