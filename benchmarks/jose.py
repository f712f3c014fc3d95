"""How much a token costs beyond its signature. Run: python benchmarks/jose.py

Prints operations per second of one core for a token of about 300 bytes of claims, and the same for the bare primitive
of `cryptography`; the last column is time over time. Best of several rounds, in CPU time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from ostiary.authorization import bounds, claims
from ostiary.protocol import canonical, dpop, jose

ROUNDS = 7
SECONDS = 0.25
NOW = 1_700_000_000_000_000
URI = "https://files.example/mcp"
DETAILS = [{"type": "tool", "locations": [URI], "actions": ["read_file"], "arguments": {"path": {"prefix": "/srv/"}}}]
CLAIMS = claims.AccessClaims(
    iss="https://ostiary.example",
    sub="pe_01890a5d-ac96-774b-bcce-b302099a8057",
    client_id="ag_01890a5d-ac96-774b-bcce-b302099a8057",
    aud=URI,
    exp=NOW // 1_000_000 + 300,
    iat=NOW // 1_000_000,
    jti="tok_01890a5d-ac96-774b-bcce-b302099a8057",
    scope="files:read",
    task="tk_01890a5d-ac96-774b-bcce-b302099a8057",
)


def rate(work: Callable[[], object]) -> float:
    """Calls per second of CPU time, in the best round."""
    work()
    best = 0.0
    for _ in range(ROUNDS):
        count, begin = 0, time.process_time()
        while (spent := time.process_time() - begin) < SECONDS:
            for _ in range(20):
                work()
            count += 20
        best = max(best, count / spent)
    return best


def primitives(alg: str, text: bytes) -> tuple[Callable[[], object], Callable[[], object]]:
    """Signing and verifying with nothing around it."""
    if alg == "ES256":
        key, way = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())
        signature, public = key.sign(text, way), key.public_key()
        return lambda: key.sign(text, way), lambda: public.verify(signature, text, way)
    if alg == "EdDSA":
        edwards = ed25519.Ed25519PrivateKey.generate()
        signed, edwards_public = edwards.sign(text), edwards.public_key()
        return lambda: edwards.sign(text), lambda: edwards_public.verify(signed, text)
    secret, pad, digest = rsa.generate_private_key(65537, 2048), padding.PKCS1v15(), hashes.SHA256()
    made, modulus = secret.sign(text, pad, digest), secret.public_key()
    return lambda: secret.sign(text, pad, digest), lambda: modulus.verify(made, text, pad, digest)


def show(name: str, work: Callable[[], object], base: Callable[[], object] | None = None) -> None:
    ours = rate(work)
    if base is None:
        print(f"{name:34}{ours:12,.0f}/s {1e6 / ours:9.2f} us")
    else:
        bare = rate(base)
        print(f"{name:34}{ours:12,.0f}/s {1e6 / ours:9.2f} us   bare {bare:10,.0f}/s   x{bare / ours:.3f}")


def show_alg(alg: str) -> None:
    key = jose.generate(alg)
    public = key.public
    token = jose.sign_jwt(key, typ="at+jwt", claims=CLAIMS)
    sign, verify = primitives(alg, token.rpartition(".")[0].encode())
    show(f"{alg} sign_jwt", lambda: jose.sign_jwt(key, typ="at+jwt", claims=CLAIMS), sign)
    show(
        f"{alg} verify_jwt",
        lambda: jose.verify_jwt(
            token, key_for=lambda header: public, typ={"at+jwt"}, now=NOW, issuer=CLAIMS.iss, audience=URI
        ),
        verify,
    )


def main() -> None:
    for alg in ("ES256", "EdDSA", "RS256"):
        show_alg(alg)
    key = jose.generate("ES256")
    token = jose.sign_jwt(key, typ="at+jwt", claims=CLAIMS)
    proof = dpop.make_proof(key, method="POST", uri=URI, now=NOW, jti="e1j3V_bKic8-LAEB", access_token=token)
    sign, verify = primitives("ES256", proof.rpartition(".")[0].encode())
    show(
        "dpop.make_proof",
        lambda: dpop.make_proof(key, method="POST", uri=URI, now=NOW, jti="e1j3V_bKic8-LAEB", access_token=token),
        sign,
    )
    show(
        "dpop.check_proof",
        lambda: dpop.check_proof(proof, method="POST", uri=URI, now=NOW, access_token=token, jkt=key.public.thumbprint),
        verify,
    )
    print()
    jwk, payload = key.public.jwk, jose.parse_jws(token).payload
    details, arguments = bounds.parse_details(DETAILS), {"path": "/srv/reports/2026.csv", "limit": 10}
    show("parse_jws", lambda: jose.parse_jws(token))
    show("parse_public_jwk", lambda: jose.parse_public_jwk(jwk))
    parsed = jose.parse_claims(payload)
    show("canonical.parse, claims", lambda: canonical.parse(payload))
    show("canonical.encode, claims", lambda: canonical.encode(parsed))
    show("canonical.digest, arguments", lambda: canonical.digest(arguments))
    show(
        "parse_access + check_access",
        lambda: claims.check_access(claims.parse_access(parsed), issuer=CLAIMS.iss, audience=URI, now=NOW),
    )
    show("bounds.permits", lambda: bounds.permits(details, resource_uri=URI, tool="read_file", arguments=arguments))
    show("bounds.is_within", lambda: bounds.is_within(details, details))


if __name__ == "__main__":
    main()
