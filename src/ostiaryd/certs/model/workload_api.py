"""The messages of the SPIFFE Workload API, in the wire format of Protocol Buffers (SPIFFE Workload API, 5.1 and 6.1).

    X509SVIDResponse       svids 1, crl 2, federated_bundles 3
    X509SVID               spiffe_id 1, x509_svid 2, x509_svid_key 3, bundle 4, hint 5
    X509BundlesResponse    crl 1, bundles 2
    JWTSVIDRequest         audience 1, spiffe_id 2
    JWTSVIDResponse        svids 1
    JWTSVID                spiffe_id 1, svid 2, hint 3
    JWTBundlesResponse     bundles 1
    ValidateJWTSVIDRequest   audience 1, svid 2
    ValidateJWTSVIDResponse  spiffe_id 1, claims 2 (google.protobuf.Struct)

A hint is the name of the agent, so that a process with several identities can choose one. Revocation lists are not
sent: a workload reads them from the URLs in the certificate. Unknown fields are ignored. A bundle is a concatenation of
DER certificates; in a chain, the certificate of the SVID is first.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ostiary.protocol.errors import Malformed
from ostiary.protocol.protobuf import encode_bytes, encode_double, encode_number, parse_fields

SERVICE = "SpiffeWorkloadAPI"


class X509Svid(NamedTuple):
    """An X509-SVID: its chain in DER, and its private key as PKCS #8."""

    spiffe_id: str
    chain: tuple[bytes, ...]
    key: bytes


def encode_x509_svids(
    svids: Sequence[X509Svid], bundle: Sequence[bytes], federated: Mapping[str, Sequence[bytes]]
) -> bytes:
    """Return an X509SVIDResponse. `bundle`: the X.509 authorities of the SVIDs' trust domain; `federated`: the X.509
    authorities by the SPIFFE ID of each federated trust domain.
    """
    own = b"".join(bundle)
    encoded = [
        encode_bytes(
            1,
            encode_bytes(1, svid.spiffe_id.encode())
            + encode_bytes(2, b"".join(svid.chain))
            + encode_bytes(3, svid.key)
            + encode_bytes(4, own)
            + encode_bytes(5, _hint(svid.spiffe_id)),
        )
        for svid in svids
    ]
    return b"".join(encoded) + _encode_map(3, {name: b"".join(roots) for name, roots in federated.items()})


def encode_x509_bundles(bundles: Mapping[str, Sequence[bytes]]) -> bytes:
    """Return an X509BundlesResponse of X.509 authorities, by the SPIFFE ID of their trust domain."""
    return _encode_map(2, {name: b"".join(roots) for name, roots in bundles.items()})


def encode_jwt_bundles(bundles: Mapping[str, bytes]) -> bytes:
    """Return a JWTBundlesResponse of JWK Sets, by the SPIFFE ID of their trust domain."""
    return _encode_map(1, bundles)


def parse_jwt_svid_request(message: bytes) -> tuple[list[str], str]:
    """Return the audiences and the SPIFFE ID (empty for none) of a JWTSVIDRequest. Raises Malformed for other bytes."""
    audiences, spiffe_id = [], ""
    for number, value in parse_fields(message):
        if number == 1:
            audiences.append(_text(value))
        elif number == 2:
            spiffe_id = _text(value)
    return audiences, spiffe_id


def encode_jwt_svids(svids: Sequence[tuple[str, str]]) -> bytes:
    """Return a JWTSVIDResponse, from pairs of SPIFFE ID and token."""
    return b"".join(
        encode_bytes(
            1,
            encode_bytes(1, spiffe_id.encode()) + encode_bytes(2, token.encode()) + encode_bytes(3, _hint(spiffe_id)),
        )
        for spiffe_id, token in svids
    )


def parse_validate_request(message: bytes) -> tuple[str, str]:
    """Return the audience and the token of a ValidateJWTSVIDRequest. Raises Malformed for other bytes."""
    texts = {1: "", 2: ""}
    for number, value in parse_fields(message):
        if number in texts:
            texts[number] = _text(value)
    return texts[1], texts[2]


def encode_validated(spiffe_id: str, claims: Mapping[str, object]) -> bytes:
    """Return a ValidateJWTSVIDResponse. Raises Malformed if a claim is a number that Protocol Buffers cannot
    represent.
    """
    return encode_bytes(1, spiffe_id.encode()) + encode_bytes(2, _encode_struct(claims))


def check_empty_request(message: bytes) -> None:
    """Check that the message of a request without fields is valid Protocol Buffers. Unknown fields are ignored. Raises
    Malformed if the check fails.
    """
    for _ in parse_fields(message):
        pass


def _hint(spiffe_id: str) -> bytes:
    """Return the hint of an SVID: the agent's name in the SPIFFE ID."""
    return spiffe_id.rpartition("/")[2].encode()


def _encode_map(number: int, values: Mapping[str, bytes]) -> bytes:
    return b"".join(
        encode_bytes(number, encode_bytes(1, name.encode()) + encode_bytes(2, value)) for name, value in values.items()
    )


def _encode_struct(values: Mapping[str, object]) -> bytes:
    """Return a google.protobuf.Struct of a mapping."""
    return _encode_map(1, {name: _encode_value(value) for name, value in values.items()})


def _encode_value(value: object) -> bytes:
    """Return a google.protobuf.Value: null 1, number 2, string 3, bool 4, struct 5, list 6."""
    match value:
        case None:
            return encode_number(1, 0)
        case bool():
            return encode_number(4, int(value))
        case int() | float():
            try:
                return encode_double(2, struct.pack("<d", float(value)))
            except OverflowError:
                raise Malformed("a claim is a number outside the range of a double") from None
        case str():
            return encode_bytes(3, value.encode())
        case dict():
            return encode_bytes(5, _encode_struct(value))
        case list():
            return encode_bytes(6, b"".join(encode_bytes(1, _encode_value(one)) for one in value))
        case _:
            raise TypeError(f"{type(value).__name__} is not a JSON value")


def _text(value: int | memoryview) -> str:
    """Return the string of a field. Raises Malformed for a field of another type."""
    if isinstance(value, int):
        raise Malformed("a field of the message is a number instead of a string")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise Malformed("a string of the message is not UTF-8") from None
