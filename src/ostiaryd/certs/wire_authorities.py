"""Authorities as JSON under /api/v1: creation, rotation, revocation, and import. Times are seconds since the epoch."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, TypedDict

import msgspec
from cryptography import x509

from ostiary.protocol.certificate import KeyType, load_pem_certificates
from ostiary.protocol.errors import Malformed, Refused
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import encode_pem, new_keys
from ostiaryd.certs.flows.rotation import (
    OVERLAP_S,
    find_replaceable,
    finish_import,
    init_authority,
    replace_revoked,
    replaced_key_type,
    revoke_authority,
    rotate_authority,
    start_import,
)
from ostiaryd.certs.model import (
    SECOND,
    Authority,
    AuthorityKind,
)
from ostiaryd.certs.model.requests import MAX_PEM
from ostiaryd.certs.wire_admin import Revocation
from ostiaryd.ground.crypto.hsm import ANSWER_S
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ


class NewAuthority(msgspec.Struct, forbid_unknown_fields=True):
    """A new certificate authority. `key_type`: the type of its keys. `permitted`: the DNS names that it may certify,
    such as `dns:example.com`; none: all names.
    """

    key_type: KeyType | None = None
    permitted: list[str] = []


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """The replacement of the active root or of the active intermediate."""

    kind: Literal["root", "intermediate"] = "intermediate"
    key_type: KeyType | None = None
    """Type of the new key; if omitted, the type of the replaced authority's key."""
    overlap: int = OVERLAP_S
    """Seconds for which a new root is published before it signs."""


class NewImport(msgspec.Struct, forbid_unknown_fields=True):
    """A request for an intermediate whose certificate an external root issues."""

    key_type: KeyType | None = None


class Import(msgspec.Struct, forbid_unknown_fields=True):
    """The certificate of the pending intermediate, followed by the certificates above, including the root, in PEM."""

    chain: str


class AuthorityBody(TypedDict):
    """An authority with its certificate in PEM. The certificate is empty while the authority is pending."""

    authority_id: str
    kind: str
    state: str
    parent: str | None
    subject: str
    key_type: str
    has_key: bool
    permitted: list[str]
    not_before: int
    not_after: int
    created_at: int
    active_from: int | None
    revoked_at: int | None
    reason: str
    certificate: str


class ImportBody(AuthorityBody):
    """A pending intermediate, with its certificate request (PKCS #10) in PEM for the owner of the external root."""

    request: str


class AuthorityRevocationBody(AuthorityBody):
    """The revoked intermediate, and the intermediate that replaces it: null if the revoked one was not active, if its
    root is external, or if the server could not create a new one yet, for example because its HSM does not answer.
    """

    replaced_by: AuthorityBody | None


async def list_authorities(call: Call) -> Reply:
    """List the authorities, the oldest first: roots, intermediates, and their OCSP responders."""
    return await reply_short_list(
        call,
        "authorities",
        store.authorities.authorities,
        lambda _, one: _render_authority(one),
        cursor=_id,
    )


def _id(authority: Authority) -> str:
    return authority.authority_id


async def create_authority(call: Call) -> Reply:
    """Create the intermediate, and the root if there is none.

    Without this call, the first certificate creates both with default settings.
    """
    new, config = call.json(NewAuthority), call.world.config
    async with new_keys(call.world, new.key_type or config.certificate_key_type) as keys:
        made = await registry.act_as(
            call, "authority.create", lambda act: init_authority(act, keys, permitted=new.permitted, config=config)
        )
    return reply(_render_authority(made), status=201)


async def rotate(call: Call) -> Reply:
    """Replace the intermediate, or publish a new root that replaces the active root after the overlap.

    Certificates of the replaced authority stay valid. The replaced root stays in the trust bundle until these
    certificates have expired.
    """
    order, config = call.json(Rotation), call.world.config
    kind = AuthorityKind(order.kind)
    key_type = order.key_type or replaced_key_type(call.world.db.read(), kind, config=config)
    async with new_keys(call.world, key_type) as keys:
        made = await registry.act_as(
            call,
            "authority.rotate",
            lambda act: rotate_authority(act, kind, keys, overlap_s=order.overlap, config=config),
        )
    return reply(_render_authority(made), status=201)


async def revoke_intermediate(call: Call) -> Reply:
    """Revoke an intermediate and all its certificates.

    The revocation list of the root contains the revoked intermediate at once. The owner of an external root must revoke
    the intermediate as well.

    If the intermediate was active, a new intermediate replaces it. If the HSM does not make the keys within 2 seconds,
    `replaced_by` is null, and the server creates the new intermediate as soon as the HSM has made them.
    """
    order, config = call.json(Revocation), call.world.config
    revoked = await registry.act_as(
        call, "authority.revoke", lambda act: revoke_authority(act, call.params["id"], order.reason)
    )
    made = None
    if (unreplaced := find_replaceable(call.world.db.read())) is not None:
        with suppress(Refused):  # the revocation is in force, and the server repeats the replacement
            async with new_keys(call.world, unreplaced.key_type, 2, within_s=ANSWER_S) as keys:
                made = await registry.act_as(
                    call, "authority.rotate", lambda act: replace_revoked(act, keys.copy(), config=config)
                )
    return reply({**_render_authority(revoked), "replaced_by": None if made is None else _render_authority(made)})


async def request_import(call: Call) -> Reply:
    """Create a pending intermediate, which an external root must certify, and return its certificate request."""
    new, config = call.json(NewImport), call.world.config
    async with new_keys(call.world, new.key_type or config.certificate_key_type, 1) as keys:
        pending, csr = await registry.act_as(
            call, "authority.request", lambda act: start_import(act, keys, config=config)
        )
    return reply({**_render_authority(pending), "request": csr.decode()}, status=201)


async def import_certificate(call: Call) -> Reply:
    """Install the certificate of the pending intermediate, with the certificates above, up to the root.

    The intermediate replaces the active intermediate.
    """
    chain = _read_chain(call.json(Import).chain)
    config = call.world.config
    key_type = replaced_key_type(call.world.db.read(), AuthorityKind.INTERMEDIATE, config=config)
    async with new_keys(call.world, key_type, 1) as keys:
        installed = await registry.act_as(
            call, "authority.import", lambda act: finish_import(act, chain, keys, config=config)
        )
    return reply(_render_authority(installed))


def _read_chain(text: str) -> list[x509.Certificate]:
    if len(text) > MAX_PEM:
        raise Malformed(f"`chain` has more than {MAX_PEM} characters")
    try:
        return load_pem_certificates(text)
    except Malformed:
        raise Malformed(
            "`chain` is not a list of certificates in PEM",
            hint="send the certificate of the intermediate first, and then those above it up to the root",
        ) from None


def _render_authority(authority: Authority) -> AuthorityBody:
    return {
        "authority_id": authority.authority_id,
        "kind": authority.kind.value,
        "state": authority.state.value,
        "parent": authority.parent,
        "subject": authority.subject,
        "key_type": authority.key_type,
        "has_key": authority.has_key,
        "permitted": list(authority.permitted),
        "not_before": authority.not_before // SECOND,
        "not_after": authority.not_after // SECOND,
        "created_at": authority.created_at // SECOND,
        "active_from": None if authority.active_from is None else authority.active_from // SECOND,
        "revoked_at": None if authority.revoked_at is None else authority.revoked_at // SECOND,
        "reason": authority.reason,
        "certificate": encode_pem((authority.certificate,)).decode() if authority.certificate else "",
    }


ROUTES = (
    Route(
        "GET",
        "/api/v1/authorities",
        list_authorities,
        READ,
        answers={200: PageBody("authorities", AuthorityBody)},
        query=PAGE,
    ),
    Route(
        "POST",
        "/api/v1/authorities",
        create_authority,
        ADMIN,
        body=NewAuthority,
        grants=True,
        answers={201: AuthorityBody},
    ),
    Route(
        "POST",
        "/api/v1/authorities/rotate",
        rotate,
        ADMIN,
        body=Rotation,
        grants=True,
        answers={201: AuthorityBody},
    ),
    Route(
        "POST",
        "/api/v1/authorities/{id}/revoke",
        revoke_intermediate,
        ADMIN,
        body=Revocation,
        stops=True,
        errors=(NOT_FOUND,),
        answers={200: AuthorityRevocationBody},
    ),
    Route(
        "POST",
        "/api/v1/authorities/request",
        request_import,
        ADMIN,
        body=NewImport,
        grants=True,
        answers={201: ImportBody},
    ),
    Route(
        "POST",
        "/api/v1/authorities/import",
        import_certificate,
        ADMIN,
        body=Import,
        grants=True,
        answers={200: AuthorityBody},
    ),
)
