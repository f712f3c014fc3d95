"""Access to this server's own API: an access token of this server and a proof of its key (RFC 6750, RFC 9449 section
7).

Signature and claims are checked offline; two database reads by key check that the token is in force and its holder
active. The caller then has to mark the proof as used: with `spend_proof` inside an act, with `spend_at_once` without an
act.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from ostiary.authorization.claims import (
    ACCESS_TYP,
    AccessClaims,
    check_access,
    check_certificate,
    parse_access,
    scopes,
)
from ostiary.decision.access import find_unproved
from ostiary.protocol import dpop, jose
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Forbidden, Unauthenticated
from ostiary.protocol.jose.jws import parse_claims
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ, Caller, Stop, check_not_stopped, is_person_id, names_of_agent
from ostiaryd.trust import store
from ostiaryd.trust.flows.proofs import Possession, check_possession
from ostiaryd.trust.model import DIGEST_BYTES, PEP_KEY_PREFIX, SECOND, USERINFO, AccessRefused, Spend


class Request(msgspec.Struct, frozen=True):
    """The credentials of a request, none of which is verified yet. `uri`: public URI of the request at this server."""

    method: str
    uri: str
    authorization: str | None
    unverified_proof: str | None
    certificate: ClientCertificate | None = None


class VerifiedCredentials(msgspec.Struct, frozen=True):
    """A token of this server, and the possession that its binding demands, with verified signatures and times. The
    caller must still check that the token has not been ended and that its holder is active (`find_access`).
    """

    claims: AccessClaims
    possession: Possession


class Access(msgspec.Struct, frozen=True):
    """An authenticated caller. `proof` is the DPoP proof that must still be marked as used (None without a proof). If
    `next_nonce` is set, the response must send that nonce to the client.
    """

    caller: Caller
    proof: Spend | None
    next_nonce: str | None


def verify_access(
    request: Request, *, audience: str, reader: Reader, now: int, keys: Keyring, config: Config
) -> Access:
    """Return the caller of a request to the resource `audience`, by `verify_credentials` and `find_access`. Raises the
    errors of both.
    """
    verified = verify_credentials(request, audience=audience, reader=reader, now=now, keys=keys, config=config)
    return find_access(reader, verified, now=now)


def verify_credentials(
    request: Request, *, audience: str, reader: Reader, now: int, keys: Keyring, config: Config
) -> VerifiedCredentials:
    """Verify the credentials of a request to the resource `audience`. Raises Unauthenticated without a token,
    AccessRefused for an invalid token, InvalidProof or NonceNeeded for the DPoP proof.

    1. Parse scheme and token. 2. Check that this server issued the token, for this audience, and that its time is
    valid. 3. Check that the token is bound to the key of the proof and to the client certificate, or that its client is
    exempt.
    """
    scheme, unverified_token = _credentials(request.authorization)
    claims = verify_token(unverified_token, keys=keys)
    try:
        check_access(claims, issuer=config.issuer, audience=audience, now=now)
    except jose.InvalidToken as error:
        raise AccessRefused(error.message) from None
    possession = _check_binding(
        request, scheme, unverified_token, claims, reader=reader, now=now, keys=keys, config=config
    )
    return VerifiedCredentials(claims, possession)


def find_access(reader: Reader, verified: VerifiedCredentials, *, now: int) -> Access:
    """Return the caller of a request with verified credentials. Raises AccessRefused if, at the time `now`
    (microseconds), the token has ended, or its holder is not active or is stopped.
    """
    caller = live_caller(reader, verified.claims, now=now)
    return Access(caller, verified.possession.spend, verified.possession.next_nonce)


def _check_binding(
    request: Request,
    scheme: str,
    unverified_token: str,
    claims: AccessClaims,
    *,
    reader: Reader,
    now: int,
    keys: Keyring,
    config: Config,
) -> Possession:
    """Check that the request proves possession of the key or certificate to which the token is bound, and return the
    proved possession.

    The result is empty if no DPoP proof has to be marked as used. Raises AccessRefused if the token is not bound as it
    must be, InvalidProof or NonceNeeded for the DPoP proof.
    """
    if claims.cnf is None:
        if scheme == "bearer" and claims.aud == config.issuer + USERINFO:
            return Possession()
        if scheme != "bearer":
            raise AccessRefused(
                "the token is bound to no key and cannot be sent with the scheme DPoP",
                hint="request a token with a DPoP proof",
            )
        own = registry.get_resource_by_uri(reader, claims.aud)
        if own is None or not store.exemptions.is_exempt(reader, claims.client_id, own.resource_id):
            raise AccessRefused(
                "the token is bound to no key, and this server accepts no bearer tokens of the client",
                hint="request a token with a DPoP proof, and send the token as `Authorization: DPoP`",
            )
        return Possession()
    try:
        check_certificate(claims.cnf, request.certificate)
    except jose.InvalidToken as error:
        raise AccessRefused(error.message, hint=error.hint) from None
    if claims.cnf.jkt is None:
        if claims.cnf.certificate is not None and scheme == "bearer":
            return Possession()
        raise AccessRefused(
            "the token is bound to no DPoP key and cannot be sent with the scheme DPoP",
            hint="send the token with the scheme Bearer, on a connection with the client certificate",
        )
    if scheme != "dpop":
        raise AccessRefused(
            "the token is bound to a key and cannot be sent as a bearer token",
            hint="send the token with the scheme DPoP",
        )
    if request.unverified_proof is None:
        raise dpop.InvalidProof("the DPoP proof is missing", hint="send the header `DPoP`")
    return check_possession(
        request.unverified_proof,
        method=request.method,
        uri=request.uri,
        now=now,
        keys=keys,
        config=config,
        purpose=b"rs",
        access_token=unverified_token,
        jkt=claims.cnf.jkt,
    )


def spend_proof(tx: Tx, proof: Spend) -> None:
    """Mark the DPoP proof of a request as used, inside the act that the request causes. Raises InvalidProof if the
    proof was used before.
    """
    _check_new(is_first_use(tx, proof))


async def spend_at_once(world: World, proof: Spend, claims: AccessClaims | None = None) -> None:
    """Mark a DPoP proof as used in a write transaction of its own, without a ledger entry. Raises InvalidProof if the
    proof was used before.

    `claims`: the claims of the token of the request. If this token or its holder is no longer valid, raises
    AccessRefused and does not store the proof, so that requests with an ended token fill no memory. The write job
    itself does not raise, because it shares its batch with other jobs.
    """

    def spend(tx: Tx) -> AccessRefused | bool:
        try:
            if claims is not None:
                live_caller(tx, claims, now=tx.now)
        except AccessRefused as refusal:
            return refusal
        return is_first_use(tx, proof)

    spent: AccessRefused | bool = await world.writer.submit(spend)
    if isinstance(spent, AccessRefused):
        raise spent
    _check_new(spent)


async def are_proofs_durable(world: World) -> bool:
    """Mark a random proof as used, and return whether the database on the disk then contains it. If so, used proofs
    survive a restart.
    """
    proof = Spend(world.random(DIGEST_BYTES), world.now() + SECOND, world.now())
    await spend_at_once(world, proof)
    return await world.db.scan(lambda reader: store.proofs.is_spent(reader, proof.digest))


def is_first_use(tx: Tx, proof: Spend) -> bool:
    """Mark a proof as used, and return whether it was new. The proof counts as used even if the act is refused.

    Return false also for an expired proof, because the record of its first use may already have been deleted, and for a
    proof from before a loss of history.
    """
    return tx.now < proof.until and store.proofs.spend(tx, proof)


def _check_new(is_new: bool) -> None:
    if not is_new:
        raise dpop.InvalidProof("the DPoP proof was used before", hint="make a new proof for each request")


def read_claims(authorization: str | None, *, keys: Keyring) -> AccessClaims:
    """Return the claims of the access token in an Authorization header. The signature is verified; times, status and
    binding of the token are not. Raises Unauthenticated without a token, AccessRefused for an invalid signature.
    """
    return verify_token(_credentials(authorization)[1], keys=keys)


def verify_token(unverified_token: str, *, keys: Keyring) -> AccessClaims:
    """Return the claims of a token that this server signed. Whether the token is expired or ended is not checked.
    Raises AccessRefused for an unknown key and for an invalid signature.
    """
    good = keys.public("token")
    if (verified := keys.verified.get(unverified_token)) is not None and verified[0] in good:
        return verified[1]
    try:
        kid = str(jose.parse_header(unverified_token.partition(".")[0]).get("kid"))
        if (key := good.get(kid)) is None:
            message = "another server issued the access token, or the token is too old"
            raise AccessRefused(message, hint="request another token")
        jws = jose.verify_jws(unverified_token, key_for=lambda _: key, typ=(ACCESS_TYP,))
        claims = parse_access(parse_claims(jws.payload))
    except jose.InvalidToken as error:
        raise AccessRefused(error.message) from None
    keys.verified.add(unverified_token, kid, claims)
    return claims


def live_caller(reader: Reader, claims: AccessClaims, *, now: int) -> Caller:
    """Return the holder of a token. Raises AccessRefused if, at the time `now` (microseconds), the token has ended, or
    its holder is not active or is stopped by the kill switch.
    """
    holding = registry.get_holding(reader, claims.jti)
    if holding is None or not holding.is_live(now):
        raise AccessRefused("the token has ended", hint="request another token")
    if claims.client_id.startswith("rs_"):
        guard = registry.get_resource(reader, claims.client_id)
        if guard is None:
            raise AccessRefused("the resource of the guard no longer exists")
        return _caller(claims, kind="guard", name=guard.name, owner=None)
    if is_person_id(claims.client_id):
        person = registry.get_person(reader, claims.client_id)
        if person is None or not person.is_active:
            raise AccessRefused(f"the person {'is unknown' if person is None else person.absence}")
        _check_not_stopped(registry.list_stops(reader), [("owner", person.person_id)])
        return _caller(claims, kind="person", name=person.name, owner=None)
    agent = registry.get_agent(reader, claims.client_id)
    if agent is None or not agent.is_active(now):
        raise AccessRefused("the agent is not active", hint="ask the owner of the agent")
    if claims.epoch < agent.epoch:
        raise AccessRefused(
            "the tokens of the agent were ended after this token was issued",
            hint="request a new token; if that is refused, ask the owner of the agent",
        )
    if stops := registry.list_stops(reader):
        _check_not_stopped(stops, [*names_of_agent(agent), ("task", claims.task), ("owner", claims.sub)])
    caller = _caller(claims, kind="agent", name=agent.name, owner=agent.owner)
    return caller if agent.restricted_until <= now else _within_restrictions(reader, caller, claims, now=now)


def _within_restrictions(reader: Reader, caller: Caller, claims: AccessClaims, *, now: int) -> Caller:
    """Return the caller with only those scopes that the restrictions of its agent allow. Raises AccessRefused if a
    restriction demands a stronger authentication.
    """
    for restriction in registry.list_restrictions_of_agent(reader, caller.id, now=now):
        is_step_up = restriction.kind == "step_up"
        if is_step_up and (why := find_unproved(claims.acr, claims.auth_time, restriction, now=now)) is not None:
            raise AccessRefused(why.message, hint=f"request a token with `acr_values` {why.acr_values}")
        if restriction.kind == "narrow":
            caller = replace(caller, scopes=caller.scopes & {READ})
    return caller


def _check_not_stopped(stops: list[Stop], names: list[tuple[str, str]]) -> None:
    """Check that no kill switch stops any of these subjects, given as (kind, id). Raises AccessRefused for the first
    stop.
    """
    try:
        check_not_stopped(stops, names)
    except Forbidden as refusal:
        raise AccessRefused(refusal.message, hint=refusal.hint) from None


def _credentials(authorization: str | None) -> tuple[str, str]:
    """Return the scheme of an Authorization header in lower case, and the unverified token. Raises Unauthenticated
    without a token of scheme DPoP or Bearer, AccessRefused for an API key of a PEP.
    """
    if authorization is None:
        raise Unauthenticated("not authenticated", hint="send an access token and a DPoP proof")
    scheme, _, unverified_token = authorization.partition(" ")
    if scheme.lower() not in ("dpop", "bearer"):
        raise Unauthenticated("the scheme of the Authorization header is neither DPoP nor Bearer", hint="use DPoP")
    unverified_token = unverified_token.strip(" ")
    if unverified_token.startswith(PEP_KEY_PREFIX):
        hint = "for other endpoints send an access token and a DPoP proof"
        raise AccessRefused("an API key is accepted only at the AuthZEN endpoints, with the scheme Bearer", hint=hint)
    return scheme.lower(), unverified_token


def _caller(claims: AccessClaims, *, kind: Literal["person", "agent", "guard"], name: str, owner: str | None) -> Caller:
    return Caller(
        kind=kind,
        id=claims.client_id,
        name=name,
        owner=owner,
        scopes=scopes(claims),
        jkt=None if claims.cnf is None else claims.cnf.jkt or claims.cnf.certificate,
        task=claims.task or None,
        token=claims.jti,
    )
