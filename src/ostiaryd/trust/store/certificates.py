"""Stored trust anchors, and the clients that authenticate by certificate."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.trust.model.certificates import CertificateClient, TrustAnchor

_ANCHORS = sql("select digest, name, certificate, is_own, added_at from trust_anchor order by name", steady=True)
_ADD_ANCHOR = sql(
    """insert into trust_anchor (digest, name, certificate, is_own, added_at)
       values (:digest, :name, :certificate, :is_own, :now)"""
)
_DROP_ANCHOR = sql("delete from trust_anchor where digest = :digest")
_CLIENT = sql(
    "select client, method, kind, value, is_bound, since from certificate_client where client = :client", steady=True
)
_PUT_CLIENT = sql(
    """insert into certificate_client (client, method, kind, value, is_bound, since)
       values (:client, :method, :kind, :value, :is_bound, :since)
       on conflict (client) do update set method = excluded.method, kind = excluded.kind, value = excluded.value,
           is_bound = excluded.is_bound, since = excluded.since"""
)
_DROP_CLIENT = sql("delete from certificate_client where client = :client")
_CERTIFICATES = sql(
    "select digest, certificate from client_certificate where client = :client order by digest", steady=True
)
_ADD_CERTIFICATE = sql(
    """insert into client_certificate (client, digest, certificate, added_at)
       values (:client, :digest, :certificate, :now)"""
)
_DROP_CERTIFICATES = sql("delete from client_certificate where client = :client")
_COUNT = sql(
    """select coalesce(sum(case when client like 'ag%' then 1 else 0 end), 0), count(*) from client_certificate"""
)
_COUNT_SUBJECTS = sql("select count(*) from certificate_client where kind <> ''")
_HOLDER = sql("select client from client_certificate where digest = :digest order by client limit 1")
_ADMITTED_DIGESTS = sql(
    "select digest from trust_anchor union select digest from client_certificate order by digest", steady=True
)
_ADMITTED = sql("select certificate from trust_anchor union select certificate from client_certificate")


def list_anchors(reader: Reader) -> list[TrustAnchor]:
    """Return the trust anchors by name."""
    return [
        TrustAnchor(digest, name, certificate, bool(is_own), added_at)
        for digest, name, certificate, is_own, added_at in reader.all(_ANCHORS)
    ]


def add_anchor(tx: Tx, anchor: TrustAnchor) -> None:
    """Store a trust anchor."""
    tx.touch("anchor", anchor.digest)
    tx.send(
        _ADD_ANCHOR,
        digest=anchor.digest,
        name=anchor.name,
        certificate=anchor.certificate,
        is_own=int(anchor.is_own),
        now=anchor.added_at,
    )


def drop_anchor(tx: Tx, digest: str) -> None:
    """Delete a trust anchor."""
    tx.touch("anchor", digest)
    tx.send(_DROP_ANCHOR, digest=digest)


def get_certificate_client(reader: Reader, client: str) -> CertificateClient | None:
    """Return the method by which a client authenticates by certificate; None if the client has no such method."""
    row = reader.one(_CLIENT, client=client)
    if row is None:
        return None
    id, method, kind, value, is_bound, since = row
    return CertificateClient(id, method, kind, value, bool(is_bound), since)


def put_client(tx: Tx, one: CertificateClient) -> None:
    """Store the method by which a client authenticates by certificate, in place of an earlier method."""
    tx.touch("certificate_client", one.client)
    tx.send(_PUT_CLIENT, **one._asdict() | {"is_bound": int(one.is_bound)})


def drop_client(tx: Tx, client: str) -> None:
    """Delete the method by which a client authenticates by certificate, and its registered certificates."""
    tx.touch("certificate_client", client)
    tx.send(_DROP_CLIENT, client=client)
    set_certificates(tx, client, {})


def certificates(reader: Reader, client: str) -> dict[str, str]:
    """Return the registered certificates of a client (PEM) by digest."""
    return dict(reader.all(_CERTIFICATES, client=client))


def set_certificates(tx: Tx, client: str, certificates_by_digest: dict[str, str]) -> None:
    """Replace the registered certificates of a client."""
    for digest in {*certificates(tx, client), *certificates_by_digest}:
        tx.touch("client_certificate", f"{client} {digest}")
    tx.send(_DROP_CERTIFICATES, client=client)
    for digest, certificate in certificates_by_digest.items():
        tx.send(_ADD_CERTIFICATE, client=client, digest=digest, certificate=certificate, now=tx.now)


def count_certificates(reader: Reader) -> tuple[int, int]:
    """Return two numbers of registered certificates: those of agents, and those of all other clients."""
    row = reader.one(_COUNT)
    assert row is not None
    return int(row[0]), int(row[1]) - int(row[0])


def count_subjects(reader: Reader) -> int:
    """Return the number of clients that authenticate by a subject in a certificate of a trust anchor."""
    row = reader.one(_COUNT_SUBJECTS)
    assert row is not None
    return int(row[0])


def holder(reader: Reader, digest: str) -> str | None:
    """Return the id of the client that registered the certificate with this digest; None if there is none."""
    row = reader.one(_HOLDER, digest=digest)
    return None if row is None else str(row[0])


def list_admitted_digests(reader: Reader) -> tuple[str, ...]:
    """Return the digests of all trust anchors and of all registered certificates."""
    return tuple(digest for (digest,) in reader.all(_ADMITTED_DIGESTS))


def admitted(reader: Reader) -> list[str]:
    """Return all trust anchors and registered certificates, in PEM."""
    return [certificate for (certificate,) in reader.all(_ADMITTED)]
