"""A small authenticator for passkeys: ES256 keys, `none` attestation, user verification, and the browser around it."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from ostiary.protocol.jose import b64u, unb64u

PRESENT, VERIFIED, HAS_KEY = 0x01, 0x04, 0x40


class Authenticator:
    """A device. `flags` and `origin` are its claims; a test may set them wrong."""

    def __init__(self, origin: str, *, rp_id: str = "") -> None:
        self.origin, self.rp_id = origin, rp_id or origin.partition("://")[2].partition(":")[0]
        self.flags = PRESENT | VERIFIED
        self.changes: dict[str, Any] = {}
        """members of the client data that are changed"""
        self.count = 0
        self.counts = True
        """False for a passkey that is on several devices: its counter stays 0"""
        self.id = b""
        self.handle = b""
        self.key = ec.generate_private_key(ec.SECP256R1())

    def create(self, options_json: str) -> str:
        """Answer `navigator.credentials.create`; the response as the script sends it."""
        options = json.loads(options_json)
        self.id, self.handle = os.urandom(16), unb64u(options["user"]["id"])
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
        attested = bytes(16) + len(self.id).to_bytes(2) + self.id + cbor2.dumps(public)
        data = self._data(self.flags | HAS_KEY) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"])
        return self._response(clientDataJSON=b64u(client), attestationObject=b64u(attestation), transports=["internal"])

    def get(self, options_json: str) -> str:
        """Answer `navigator.credentials.get`."""
        self.count += self.counts
        data = self._data(self.flags)
        client = self._client("webauthn.get", json.loads(options_json)["challenge"])
        signature = self.key.sign(data + sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._response(
            clientDataJSON=b64u(client),
            authenticatorData=b64u(data),
            signature=b64u(signature),
            userHandle=b64u(self.handle),
        )

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, **self.changes}).encode()

    def _data(self, flags: int) -> bytes:
        return sha256(self.rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4)

    def _response(self, **response: Any) -> str:
        id = b64u(self.id)
        return json.dumps({"id": id, "rawId": id, "type": "public-key", "response": response})
