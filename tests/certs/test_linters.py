"""The linters of pkilint for RFC 5280 and RFC 6960 find nothing in certificates, revocation lists and OCSP answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pkilint.bin import lint_crl, lint_ocsp_response, lint_pkix_cert

from harness.registry_fixtures import register_agent
from ostiaryd.app import build_app
from ostiaryd.certs.flows.status import RevocationLists
from ostiaryd.certs.model.authority import subject_of
from ostiaryd.certs.model.certificate import shard_of
from ostiaryd.certs.store import authorities
from ostiaryd.ground.world import World
from tests.support.api_fixtures import reconfigured, send
from tests.support.certificate_fixtures import issue, new_key, put_policies, revoke
from tests.support.status_client import question

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the linters do not close their file
Linter = Callable[[Sequence[str]], int]
UNKNOWN_SCHEME = 'pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: "spiffe://'
NAMES = ("dns:api.example.com", "ip:10.0.0.1", "ip:2001:db8::1")


@pytest.mark.parametrize("key_type", ["P-256", "P-384", "Ed25519", "RSA-2048"])
async def test_third_party_linters_find_no_defect(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], key_type: str
) -> None:
    world = reconfigured(world, certificate_key_type=key_type)
    await register_agent(world)
    await put_policies(world)
    agent, server = await issue(world, agent="bot"), await issue(world, agent="bot", profile="server", names=NAMES)
    acme = await issue(world, agent="bot", profile="server", names=NAMES, has_subject=False)
    await revoke(world, server.certificate.serial)
    documents: list[tuple[Linter, bytes]] = [
        (lint_pkix_cert.main, one.certificate.der) for one in (agent, server, acme)
    ]
    documents += [(lint_pkix_cert.main, one.certificate) for one in authorities.authorities(world.db.read())]
    lists, issuer, shard = RevocationLists(world), agent.certificate.authority, shard_of(server.certificate.serial)
    documents += [(lint_crl.main, await lists.get(issuer, one)) for one in (None, shard, (shard + 1) % 16)]
    app = build_app(world)
    for body in (question(agent), question(agent, nonce=b"n" * 32), question(server)):
        answer = await send(app, "POST", "/ocsp", body=body, headers=[("content-type", "application/ocsp-request")])
        documents.append((lint_ocsp_response.main, answer.body))
    assert len(documents) == 12
    for linter, der in documents:
        assert list_findings(linter, der, tmp_path, capsys) == []


async def test_the_linters_find_a_planted_defect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, now = new_key(), datetime(2026, 1, 1, tzinfo=UTC)
    wrong = (
        x509.CertificateBuilder()
        .subject_name(subject_of("an authority"))
        .issuer_name(subject_of("an authority"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        .sign(key, SHA256())
    )
    found = list_findings(lint_pkix_cert.main, wrong.public_bytes(Encoding.DER), tmp_path, capsys)
    assert any("basic_constraints" in line for line in found), found


def list_findings(linter: Linter, der: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what a linter says, except that it knows no URIs with the scheme `spiffe`."""
    (file := folder / "linted.der").write_bytes(der)
    kind = ["-t", "CRL", "-p", "PKIX"] if linter is lint_crl.main else []
    found = linter(["lint", *kind, "-s", "NOTICE", str(file)])
    lines = re.findall(r"^ +(\S+ \([A-Z]+\).*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(lines) == found
    return [
        line for line in lines if not line.startswith('pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: "spiffe:')
    ]
