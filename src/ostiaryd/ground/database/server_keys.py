"""The stored server keys: create, replace, and delete them, and encrypt them with another root key."""

from __future__ import annotations

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.crypto.keyring import SECRET_ALG, USES, Keyring, RootKey, seal_context
from ostiaryd.ground.database.statement import sql
from ostiaryd.ground.database.transaction import Reader, Tx

_INSERT = sql(
    """insert into server_key (kid, use_, alg, state, public_jwk, sealed, created_at)
       values (:kid, :use, :alg, 'active', :public_jwk, :sealed, :now)"""
)
_ALL = sql("select kid, use_, alg, state, sealed from server_key order by created_at, kid")
_RETIRE = sql(
    "update server_key set state = 'retired', retired_at = :now where use_ = :use and alg = :alg and state = 'active'"
)
_RESEAL = sql("update server_key set sealed = :sealed where kid = :kid")
_DROP = sql("delete from server_key where use_ = :use")
_RETIRED = sql("select 1 from server_key where state = 'retired' and retired_at < :before limit 1")
_FORGET = sql("delete from server_key where state = 'retired' and retired_at < :before")


def load_keys(keyring: Keyring, reader: Reader) -> None:
    """Load and decrypt the stored keys into `keyring`. Raises Conflict if another root key encrypted them."""
    keyring.open(reader.all(_ALL))


def create_keys(tx: Tx, root: RootKey) -> None:
    """Create the signing keys and the secret of the server, at its first start, and encrypt them with the root key."""
    for use, algs in USES.items():
        for alg in algs:
            _create(tx, root, use=use, alg=alg)
    secret = tx.random(32)
    kid = tx.random(16).hex()
    sealed = root.seal(secret, context=seal_context(kid, "nonce", SECRET_ALG), random=tx.random)
    tx.send(_INSERT, kid=kid, use="nonce", alg=SECRET_ALG, public_jwk="{}", sealed=sealed, now=tx.now)


def rotate_key(tx: Tx, root: RootKey, *, use: str, alg: str) -> str:
    """Create a new active key for this use and algorithm, retire the present one, and return the kid of the new key.
    The retired key still verifies signatures until `forget_keys` deletes it. Raises Invalid for a use without this
    algorithm, and for the key of the ledger.
    """
    if alg not in USES.get(use, ()):
        hint = f"algorithms: {', '.join(USES[use])}" if use in USES else f"uses: {', '.join(USES)}"
        raise Invalid(f"there is no {alg} key for `{use}`", hint=hint)
    if use == "ledger":
        raise Invalid(
            "the key of the ledger cannot be replaced, because it is the identity of the ledger",
            hint="to begin a new ledger, export the present ledger, and start a server with an empty --data-dir",
        )
    tx.send(_RETIRE, use=use, alg=alg, now=tx.now)
    return _create(tx, root, use=use, alg=alg)


def replace_keys(tx: Tx, root: RootKey, *, use: str) -> None:
    """Delete every key for a use, also retired keys, and create new active keys. Signatures of the old keys are not
    accepted from now on.
    """
    tx.send(_DROP, use=use)
    for alg in USES[use]:
        _create(tx, root, use=use, alg=alg)


def has_retired_keys(reader: Reader, *, before: int) -> bool:
    """Return whether any key was retired before `before` (microseconds)."""
    return reader.one(_RETIRED, before=before) is not None


def forget_keys(tx: Tx, *, before: int) -> int:
    """Delete the keys that were retired before `before` (microseconds), and return their number. Choose `before` so
    that all signatures of these keys have expired.
    """
    return tx.run(_FORGET, before=before)


def reseal(tx: Tx, *, old: RootKey, new: RootKey) -> int:
    """Encrypt every key with the root key `new`, and return the number of keys that were encrypted with the root key
    `old`. Keys that are already encrypted with `new` stay unchanged. Raises Conflict if neither root key can decrypt a
    key.
    """
    count = 0
    for kid, use, alg, _state, sealed in tx.all(_ALL):
        context = seal_context(kid, use, alg)
        try:
            new.open(bytes(sealed), context=context)
        except Conflict:
            plain = old.open(bytes(sealed), context=context)
            count += tx.run(_RESEAL, kid=kid, sealed=new.seal(plain, context=context, random=tx.random))
    return count


def _create(tx: Tx, root: RootKey, *, use: str, alg: str) -> str:
    key = jose.generate(alg)
    kid = key.public.kid
    sealed = root.seal(canonical.encode(key.jwk()), context=seal_context(kid, use, alg), random=tx.random)
    public = canonical.encode(key.public.jwk).decode()
    tx.send(_INSERT, kid=kid, use=use, alg=alg, public_jwk=public, sealed=sealed, now=tx.now)
    return kid
