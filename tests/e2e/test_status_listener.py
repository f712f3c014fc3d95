"""The listener without TLS for the status of certificates: nginx and many other programs read OCSP only by http."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from ostiary.agent import Agent
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.config import load_config


def test_the_status_listener_serves_certificate_status_over_http_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    config = tmp_path / "ostiary.toml"
    config.write_text('tls = "auto"\nstatus_listen = "127.0.0.1:0"\n')
    bases = set[str]()
    for _ in range(2):
        with PreparedServer(folder, "--config", str(config)) as server, ServerFixture(server, tmp_path) as fixture:
            base: str = json.loads((folder / "server.json").read_text())["status_url"]
            bases.add(base)
            _, credential = fixture.agent()
            with Agent.from_credential(credential) as agent:
                made = agent.certificate()
            leaf = x509.load_pem_x509_certificate(made.certificate.encode())
            intermediate = x509.load_pem_x509_certificates(made.chain.encode())[0]
            with httpx2.Client(timeout=PATIENCE_S) as http:
                check_status(http, base, leaf, intermediate)
                for path in (
                    "/",
                    "/livez",
                    "/acme/directory",
                    "/api/v1/agents",
                    "/token",
                    "/console",
                    "/v1/sys/health",
                ):
                    assert http.get(f"{base}{path}").status_code == 404
                    assert http.post(f"{base}{path}", content=b"{}").status_code == 404
    assert len(bases) == 1, "a restart takes the same port"


def check_status(http: httpx2.Client, base: str, leaf: x509.Certificate, intermediate: x509.Certificate) -> None:
    """Check that every URL in the certificates begins with `base`, and is answered."""
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    urls = {one.access_method: one.access_location.value for one in access}
    request = ocsp.OCSPRequestBuilder().add_certificate(leaf, intermediate, SHA256()).build().public_bytes(Encoding.DER)
    assert urls[AuthorityInformationAccessOID.OCSP] == f"{base}/ocsp"
    answer = http.post(f"{base}/ocsp", content=request, headers={"content-type": "application/ocsp-request"})
    assert ocsp.load_der_ocsp_response(answer.content).certificate_status is ocsp.OCSPCertStatus.GOOD
    issuer = http.get(urls[AuthorityInformationAccessOID.CA_ISSUERS]).content
    assert x509.load_der_x509_certificate(issuer) == intermediate
    [point] = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    [url] = point.full_name
    assert url.value.startswith(f"{base}/ca/")
    partition = x509.load_der_x509_crl(http.get(url.value).content)
    assert partition.is_signature_valid(intermediate.public_key())  # type: ignore[arg-type]  # the key is of the kind EC
    covered = partition.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value.full_name or []
    assert url in covered
    assert len(covered) == 2, "certificates that were issued before name the public URL"
    [point] = intermediate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    assert point.full_name[0].value.startswith(f"{base}/ca/")
    x509.load_der_x509_crl(http.get(point.full_name[0].value).content)


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, "https://id.example/auth"),
        ({"status_listen": "0.0.0.0:8780"}, "http://id.example:8780"),
        ({"status_url": "http://status.example"}, "http://status.example"),
        ({"status_listen": "0.0.0.0:8780", "status_url": "http://status.example/x"}, "http://status.example/x"),
        ({"status_listen": "0.0.0.0:8780", "public_url": "https://[2001:db8::1]:8700"}, "http://[2001:db8::1]:8780"),
    ],
)
def test_certificates_name_the_status_url(settings: dict[str, str], base: str, tmp_path: Path) -> None:
    values = {"public_url": "https://id.example/auth"} | settings
    assert load_config(None, environ={}, data_dir=str(tmp_path), **values).status_base == base


@pytest.mark.parametrize("url", ["status.example", "ldap://status.example", "http://status.example/", "http://a?b"])
def test_a_status_url_of_a_wrong_form_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="status_url"):
        load_config(None, environ={}, data_dir=str(tmp_path), status_url=url)
