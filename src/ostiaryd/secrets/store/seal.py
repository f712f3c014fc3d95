"""The seal: one row while the secrets are sealed."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql

_GET = sql("select since from vault_seal where id = 1", steady=True)
_SEAL = sql("insert into vault_seal (id, since) values (1, :now) on conflict (id) do nothing")
_UNSEAL = sql("delete from vault_seal where id = 1")


def sealed_since(reader: Reader) -> int | None:
    """Return the time at which the secrets were sealed (microseconds); None if they are not."""
    row = reader.one(_GET)
    return None if row is None else int(row[0])


def seal(tx: Tx) -> bool:
    """Seal the secrets; return False if they were sealed before."""
    return tx.run(_SEAL, now=tx.now) == 1


def unseal(tx: Tx) -> bool:
    """Remove the seal; return False if there was none."""
    return tx.run(_UNSEAL) == 1
