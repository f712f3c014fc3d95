"""Administration of the authorities: explicit creation, rotation, import of an intermediate, and scheduled
rotation and deletion.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ReasonFlags
from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import (
    create_intermediate,
    create_responder,
    create_root,
    find_authority,
    find_unreplaced,
    new_keys,
    open_sealed,
    request_intermediate,
    sign_request,
)
from ostiaryd.certs.model.authority import (
    SECOND,
    Authority,
    AuthorityId,
    AuthorityKind,
    AuthorityState,
    check_permitted,
    microseconds,
    read_end,
    subject_of,
)
from ostiaryd.certs.model.certificate import RevocationReason, holding_id
from ostiaryd.certs.model.external_chain import check_chain, public_key_of
from ostiaryd.certs.model.keys import PrivateKey, encode_public_key, key_type_of
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import fill_entry
from ostiaryd.registry.model import Root
from ostiaryd.trust import flows as trust

OVERLAP_S = 600
MAX_OVERLAP_S = 30 * 86_400
REVOKED_KEPT_S = 86_400
"""number of seconds for which a revoked intermediate stays stored after its expiry"""
ENDED_AT_ONCE = 500


def init_authority(act: Act, keys: list[PrivateKey], *, permitted: Sequence[str] = (), config: Config) -> Authority:
    """Create the intermediate, and the root if there is none; return the intermediate.

    `permitted`: names to which the intermediate is limited. Raises Invalid for invalid names, Conflict if an
    intermediate is active already (`authority_exists`), or if the key of the present root is not on this server.
    """
    permitted = check_permitted(permitted)
    if store.authorities.active(act.tx, AuthorityKind.INTERMEDIATE) is not None:
        hint = "replace the authority with `ostiary ca rotate`"
        raise Conflict("this server has a certificate authority already", hint=hint, code="authority_exists")
    root = store.authorities.active(act.tx, AuthorityKind.ROOT)
    root = root or create_root(act, keys, config=config)
    return create_intermediate(act, root, keys, config=config, permitted=permitted)


def rotate_authority(
    act: Act, kind: AuthorityKind, keys: list[PrivateKey], *, overlap_s: int = OVERLAP_S, config: Config
) -> Authority:
    """Replace the active intermediate now, or, if `kind` is root, publish a new root that signs after `overlap_s`
    seconds (0 to 30 days). Return the new authority.

    With a new root, a new intermediate is created, too. Certificates of the replaced authorities stay valid. Raises
    Invalid for another overlap; raises Conflict if no root or no intermediate is active, if another root is pending, or
    if an intermediate is to be replaced whose root's key is not on this server.
    """
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise Invalid(f"the overlap must be 0 to {MAX_OVERLAP_S} seconds")
    root, intermediate = (
        store.authorities.active(act.tx, one) for one in (AuthorityKind.ROOT, AuthorityKind.INTERMEDIATE)
    )
    if root is None or intermediate is None:
        raise Conflict(
            "the server has no active root with an active intermediate, so there is nothing to rotate",
            hint="create what is missing with `ostiary ca init`; list the authorities with `ostiary ca show`",
            code="no_authority",
        )
    if kind is AuthorityKind.INTERMEDIATE:
        return create_intermediate(act, root, keys, config=config, permitted=intermediate.permitted)
    if any(
        one.kind is AuthorityKind.ROOT and one.state is AuthorityState.PENDING
        for one in store.authorities.authorities(act.tx)
    ):
        raise Conflict(
            "another new root is published, and is not active yet",
            hint="wait until the root is active; see `ostiary ca show`",
            code="rotating",
        )
    active_from = act.now + overlap_s * SECOND
    made = create_root(act, keys, config=config, active_from=active_from)
    return made if overlap_s else activate_root(act, made.authority_id, keys, config=config)


def activate_root(act: Act, id: AuthorityId, keys: list[PrivateKey], *, config: Config) -> Authority:
    """Activate a pending root, create a new intermediate under it, and return the root. The root replaces the active
    root. Raises Conflict if the root is not pending, or before `active_from`.
    """
    root = find_authority(act.tx, id)
    fill_entry(act, object=root.authority_id)
    if root.state is not AuthorityState.PENDING or root.active_from is None:
        raise Conflict(f"the root is {root.state}, not pending", code="wrong_state")
    if act.now < root.active_from:
        raise Conflict("the time at which the pending root becomes active has not come", code="wrong_state")
    before = store.authorities.active(act.tx, AuthorityKind.ROOT)
    intermediate = store.authorities.active(act.tx, AuthorityKind.INTERMEDIATE)
    if before is not None:
        store.authorities.set_state(act.tx, before.authority_id, AuthorityState.RETIRED)
    store.authorities.set_state(act.tx, root.authority_id, AuthorityState.ACTIVE)
    root = replace(root, state=AuthorityState.ACTIVE)
    permitted = () if intermediate is None else intermediate.permitted
    create_intermediate(act, root, keys, config=config, permitted=permitted)
    return root


def revoke_authority(act: Act, id: str, reason: RevocationReason) -> Authority:
    """Revoke an intermediate, and return it. At once, the revocation list of its root contains the intermediate, and
    none of the intermediate's certificates is in force.

    The act makes and uses no key, so that an HSM that does not answer delays no revocation: an active intermediate is
    replaced by a later act (`replace_revoked`). The owner of an external root must revoke the intermediate as well.
    Raises NotFound for an unknown authority, Conflict for an authority that is not an intermediate, is pending, or is
    revoked already.
    """
    revoked = find_authority(act.tx, id)
    fill_entry(act, object=revoked.authority_id, subject=revoked.subject, why=reason.value)
    hint = "list the authorities with `ostiary ca show`"
    if revoked.kind is not AuthorityKind.INTERMEDIATE:
        message = f"only an intermediate can be revoked, and `{revoked.subject}` is of the kind {revoked.kind}"
        raise Conflict(message, hint=hint)
    if revoked.state is AuthorityState.PENDING:
        raise Conflict(f"`{revoked.subject}` is pending and has no certificate to revoke", hint=hint)
    if revoked.state is AuthorityState.REVOKED:
        raise Conflict("the authority is revoked already", code="already_revoked")
    why = ReasonFlags.ca_compromise.value if reason is RevocationReason.KEY_COMPROMISE else reason.value
    store.authorities.revoke(act.tx, revoked.authority_id, reason=why)
    return find_authority(act.tx, id)


def find_replaceable(reader: Reader) -> Authority | None:
    """Return the revoked intermediate that this server must replace; None if an intermediate is active, if none was
    revoked, or if the key of the root is not on this server.
    """
    root, revoked = store.authorities.active(reader, AuthorityKind.ROOT), find_unreplaced(reader)
    return revoked if root is not None and root.has_key else None


def replace_revoked(act: Act, keys: list[PrivateKey], *, config: Config) -> Authority | None:
    """Create an intermediate with the limits of the revoked intermediate. Return the active intermediate, which another
    act may have created meanwhile; None if this server cannot create one.
    """
    root, revoked = store.authorities.active(act.tx, AuthorityKind.ROOT), find_replaceable(act.tx)
    if root is None or revoked is None:
        return store.authorities.active(act.tx, AuthorityKind.INTERMEDIATE)
    return create_intermediate(act, root, keys, config=config, permitted=revoked.permitted)


async def end_below_revoked(world: World) -> None:
    """End the holdings of certificates whose authority is revoked, and everything obtained with these certificates, in
    small batches.

    Such a certificate is refused as soon as its authority is revoked. This function ends the access that was obtained
    with the certificate before.
    """
    for one in await world.db.scan(store.authorities.authorities):
        if one.state is AuthorityState.REVOKED:
            while store.certificates.in_force(world.db.read(), one.authority_id, now=world.now(), limit=1):
                await act(world, "authority.end", partial(_end_below, id=one.authority_id))


def _end_below(act: Act, id: AuthorityId) -> None:
    authority = find_authority(act.tx, id)
    fill_entry(act, object=id, subject=authority.subject)
    for serial, holder, _ in store.certificates.in_force(act.tx, id, now=act.now, limit=ENDED_AT_ONCE):
        store.certificates.revoke(act.tx, serial, reason=authority.reason)
        if holder is not None:
            registry.end_holdings(act, Root.CERTIFICATE, holding_id(serial), why=authority.reason)


def replaced_key_type(reader: Reader, kind: AuthorityKind, *, config: Config) -> str:
    """Return the key type of the active authority of a kind; without an active authority, the configured key type."""
    active = store.authorities.active(reader, kind)
    return config.certificate_key_type if active is None else active.key_type


def pending_import(reader: Reader) -> Authority:
    """Return the pending intermediate, which waits for the certificate of an external root. Raises Conflict if there is
    none.
    """
    for one in store.authorities.authorities(reader):
        if one.kind is AuthorityKind.INTERMEDIATE and one.state is AuthorityState.PENDING:
            return one
    raise Conflict(
        "no intermediate waits for a certificate",
        hint="create a pending intermediate: ostiary ca request --write FILE",
        code="not_pending",
    )


def start_import(act: Act, keys: list[PrivateKey], *, config: Config) -> tuple[Authority, bytes]:
    """Create a pending intermediate, which an external root must certify; return the intermediate, and its certificate
    request (PKCS #10) in PEM.
    """
    pending = request_intermediate(act, keys, config=config)
    key = open_sealed(pending, keys=act.tx.keys)
    return pending, sign_request(subject_of(pending.subject), key).public_bytes(Encoding.PEM)


def finish_import(act: Act, chain: Sequence[x509.Certificate], keys: list[PrivateKey], *, config: Config) -> Authority:
    """Install the certificate of the pending intermediate, with the certificates above it up to the root.

    1. Clients must accept the chain (`check_chain`), and its first certificate must have the key of the pending
    intermediate. 2. The certificates above are stored as authorities without a key, and the imported intermediate
    replaces the active intermediate. The imported intermediate ends as soon as one certificate of the chain ends.
    Raises Invalid for an unusable chain, Conflict if no request for an intermediate is pending.
    """
    pending = pending_import(act.tx)
    fill_entry(act, object=pending.authority_id)
    permitted = check_chain(chain, now=act.now)
    own = encode_public_key(open_sealed(pending, keys=act.tx.keys).public_key())
    if encode_public_key(public_key_of(chain[0])) != own:
        raise Invalid(
            "the first certificate has another key than the pending intermediate",
            hint="let the external root certify the request that `ostiary ca request --write FILE` wrote last",
        )
    for kind in (AuthorityKind.ROOT, AuthorityKind.INTERMEDIATE):
        if (before := store.authorities.active(act.tx, kind)) is not None:
            store.authorities.set_state(act.tx, before.authority_id, AuthorityState.RETIRED)
    parent: AuthorityId | None = None
    for certificate in reversed(chain[1:]):
        parent = _insert_external(act, certificate, parent)
    leaf = chain[0]
    installed = replace(
        pending,
        state=AuthorityState.ACTIVE,
        parent=parent,
        certificate=leaf.public_bytes(Encoding.DER),
        permitted=permitted,
        not_before=microseconds(leaf.not_valid_before_utc),
        not_after=min(map(read_end, chain)),
    )
    store.authorities.certify(act.tx, installed)
    store.authorities.set_state(act.tx, installed.authority_id, AuthorityState.ACTIVE)
    create_responder(act, installed, keys, config=config)
    return installed


def _insert_external(act: Act, certificate: x509.Certificate, parent: AuthorityId | None) -> AuthorityId:
    """Store an external authority, unless its certificate is stored already; return the id of the authority. This
    server does not have the key of such an authority.
    """
    der = certificate.public_bytes(Encoding.DER)
    for one in store.authorities.authorities(act.tx):
        if one.certificate == der:
            if one.kind is AuthorityKind.ROOT:
                store.authorities.set_state(act.tx, one.authority_id, AuthorityState.ACTIVE)
            return one.authority_id
    external = Authority(
        authority_id=AuthorityId(act.new_id("ca")),
        kind=AuthorityKind.ROOT if parent is None else AuthorityKind.EXTERNAL,
        state=AuthorityState.ACTIVE,
        parent=parent,
        subject=certificate.subject.rfc4514_string(),
        key_type=key_type_of(public_key_of(certificate)),
        certificate=der,
        sealed=None,
        not_before=microseconds(certificate.not_valid_before_utc),
        not_after=read_end(certificate),
        created_at=act.now,
    )
    store.authorities.insert(act.tx, external)
    if external.kind is AuthorityKind.ROOT:
        trust.add_own_anchor(act, external.authority_id, der)
    return external.authority_id


async def keep_authorities(world: World) -> None:
    """Do the first of these tasks that is due: activate a pending root, replace a revoked intermediate, replace an
    authority after two thirds of its lifetime, or delete a retired or revoked authority that is no longer needed.
    """
    now, config = world.now(), world.config
    every = store.authorities.authorities(world.db.read())
    for one in every:
        if one.state is AuthorityState.PENDING and one.active_from is not None and now >= one.active_from:
            async with new_keys(world, one.key_type, 2) as keys:
                flow = partial(activate_root, id=one.authority_id, keys=keys, config=config)
                await act(world, "authority.activate", flow)
            return
    if (unreplaced := find_replaceable(world.db.read())) is not None:
        async with new_keys(world, unreplaced.key_type, 2) as keys:
            await act(world, "authority.rotate", partial(replace_revoked, keys=keys, config=config))
        return
    if (aged := _find_aged(every, now=now)) is not None:
        async with new_keys(world, aged.key_type) as keys:
            await act(world, "authority.rotate", partial(rotate_authority, kind=aged.kind, keys=keys, config=config))
        return
    for one in every:
        if one.state in (AuthorityState.RETIRED, AuthorityState.REVOKED) and _is_over(world, one, every, now=now):
            async with new_keys(world, one.key_type, 0):
                await act(world, "authority.delete", partial(_delete, id=one.authority_id))
            return


def _find_aged(every: Sequence[Authority], *, now: int) -> Authority | None:
    """Return an active authority for which two thirds of its lifetime have passed; None if there is none.

    An authority that this server cannot replace, because the root's key is elsewhere, is left out. A root is left out
    while another root is pending.
    """
    kinds = [AuthorityKind.INTERMEDIATE]
    if not any(one.kind is AuthorityKind.ROOT and one.state is AuthorityState.PENDING for one in every):
        kinds.insert(0, AuthorityKind.ROOT)
    active = {one.kind: one for one in every if one.state is AuthorityState.ACTIVE}
    root = active.get(AuthorityKind.ROOT)
    if root is None or not root.has_key:
        return None
    return next((active[kind] for kind in kinds if kind in active and is_old(active[kind], now=now)), None)


def is_old(authority: Authority, *, now: int) -> bool:
    """Return whether two thirds of an authority's lifetime have passed."""
    return 3 * (now - authority.not_before) >= 2 * (authority.not_after - authority.not_before)


def _is_over(world: World, authority: Authority, every: Sequence[Authority], *, now: int) -> bool:
    """Return whether a retired or revoked authority can be deleted, because no certificate that it issued can still be
    used or shown.

    A revoked authority must stay in the revocation list of its root until its own certificate has expired.
    """
    if authority.state is AuthorityState.REVOKED and now < authority.not_after + REVOKED_KEPT_S * SECOND:
        return False
    if authority.kind is AuthorityKind.ROOT:
        return (
            not any(one.parent == authority.authority_id and one.kind is not AuthorityKind.ROOT for one in every)
            and now - (authority.retired_at or now) >= OVERLAP_S * SECOND
        )
    return not store.certificates.has_recent(world.db.read(), authority.authority_id, now=now)


def _delete(act: Act, id: AuthorityId) -> None:
    authority = find_authority(act.tx, id)
    fill_entry(act, object=id, subject=authority.subject)
    for one in store.authorities.authorities(act.tx):
        if one.kind is AuthorityKind.RESPONDER and one.parent == id:
            store.authorities.delete(act.tx, one.authority_id)
    store.authorities.delete(act.tx, id)
    trust.drop_own_anchor(act, id)
