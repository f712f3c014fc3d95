"""Certificates of the own authority: for agents (RFC 8705), and for the server itself (`--tls auto`)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from harness.client_certificates import Made, TestAuthority, context_of
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from ostiary.authorization.assurance import KEY, TWO_KEYS
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid
from ostiaryd.certs import flows as certs
from ostiaryd.certs.flows import own_tls
from ostiaryd.certs.flows.rotation import rotate_authority
from ostiaryd.certs.model import AuthorityKind
from ostiaryd.certs.model.keys import generate_keys
from ostiaryd.certs.store import authorities
from ostiaryd.ground.config import Config, load_config
from ostiaryd.ground.database.pin import InRecovery
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.trust import flows as trust
from tests.support.api_fixtures import ASSERTION_TYPE, Client, claims_of, client
from tests.support.certificate_fixtures import issue, new_key, put_policies, revoke
from tests.support.lost_history import lose
from tests.support.tls_client import TlsClient, proof, register_other

__all__ = ["client"]


async def own(tls: TlsClient, **options: str) -> Made:
    """A certificate of the server's own authority for the agent of a client."""
    key = new_key()
    issued = await issue(tls.world, key=key, agent=tls.client.id, **options)
    leaf, *chain = (x509.load_der_x509_certificate(one) for one in (issued.certificate.der, *issued.chain))
    return Made(leaf, key, tuple(chain))


async def test_a_certificate_of_the_own_authority_needs_no_registration(client: Client) -> None:
    tls = TlsClient(client)
    await put_policies(tls.world)
    made = await own(tls)
    answer = await tls.ask(made)
    assert answer.status == 200, answer.body
    assert claims_of(answer.json["access_token"])["cnf"] == {"x5t#S256": made.shown.thumbprint}
    [anchor] = trust.list_anchors(tls.world.db.read())
    assert anchor.is_own


async def test_a_revoked_certificate_or_a_certificate_of_an_inactive_agent_is_refused(client: Client) -> None:
    tls = TlsClient(client)
    await put_policies(tls.world)
    first, second = await own(tls), await own(tls)
    await revoke(tls.world, f"{first.certificate.serial_number:032x}")
    assert await tls.refuse(first, "was revoked")
    assert (await tls.ask(second)).status == 200
    await act(tls.world, "agent.test", lambda act: registry.set_agent_state(act, "reader", Verb.SUSPEND))
    assert await tls.refuse(second, "was revoked")


async def test_a_certificate_authenticates_no_other_agent(client: Client) -> None:
    tls = TlsClient(client)
    await put_policies(tls.world)
    made = await own(tls)
    _, other = await register_other(tls)
    assert await tls.refuse(made, "alternative name", client_id=other)


async def test_a_certificate_of_another_trusted_root_with_the_same_names_is_refused(client: Client) -> None:
    tls = TlsClient(client)
    await put_policies(tls.world)
    made = await own(tls)
    foreign = TestAuthority("CN=company", at=tls.now)
    await tls.trust(foreign, "company")
    names = made.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert await tls.refuse(foreign.issue("CN=x", names=list(names), at=tls.now), "leads to no trust anchor")


async def test_a_certificate_that_an_agent_gets_for_itself_does_not_count_as_a_second_key(client: Client) -> None:
    tls = TlsClient(client)
    await put_policies(tls.world)
    made = await own(tls)

    async def acr(*fields: tuple[str, str], **form: str) -> str:
        answer = await tls.ask(made, *fields, **form)
        return str(claims_of(answer.json["access_token"])["acr"])

    async def acrs() -> list[str]:
        assertion = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": client.assertion()}
        return [await acr(proof(tls, client.key)), await acr(**assertion)]

    assert await acrs() == [KEY, KEY], "the registered key is enough to get the certificate"
    [anchor] = trust.list_anchors(tls.world.db.read())
    name = f"spiffe://{tls.world.config.trust_domain}/agent/reader"
    await tls.register({"tls_client_auth_san_uri": name})
    assert await acrs() == [KEY, KEY], f"the same where the subject is registered, below {anchor.name}"
    public = jose.render_public_jwk(made.key.public_key())
    await act(tls.world, "key.add", lambda act: registry.add_key(act, "reader", public))
    assert await acrs() == [TWO_KEYS, TWO_KEYS], "an administrator registered the key as well"


@pytest.mark.parametrize("is_revoked", [False, True])
async def test_a_trust_anchor_with_the_own_root_does_not_hide_the_holder_of_a_certificate(
    client: Client, is_revoked: bool
) -> None:
    tls = TlsClient(client)
    await put_policies(tls.world)
    made = await own(tls)
    [root] = trust.list_anchors(tls.world.db.read())
    await act(tls.world, "anchor.remove", lambda act: trust.remove_anchor(act, root.name))
    await act(tls.world, "anchor.add", lambda act: trust.add_anchor(act, "company", root.certificate))
    name = f"spiffe://{tls.world.config.trust_domain}/agent/reader"
    if is_revoked:
        await tls.register({"tls_client_auth_san_uri": name})
        await revoke(tls.world, f"{made.certificate.serial_number:032x}")
        assert await tls.refuse(made, "was revoked")
    else:
        _, other = await register_other(tls)
        await tls.register({"tls_client_auth_san_uri": name}, agent="other")
        assert await tls.refuse(made, "issued to another client", client_id=other)


# --- the server's own certificate


async def test_the_certificate_of_the_server_is_renewed_at_two_thirds_of_its_life(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = TlsClient(client).world
    config = replace(world.config, tls="auto", data_dir=str(tmp_path))
    password = certs.tls_password(world.keys)
    names = own_tls.server_names(config)
    files = certs.tls_files(config)
    world = dataclasses.replace(world, config=config)
    assert await certs.renew_tls(world) is True
    assert await certs.renew_tls(world) is False
    made = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    begins, ends = made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp()
    at = int((begins + (ends - begins) * 2 / 3) * 1_000_000)
    assert [own_tls._is_due(files, names, now=now, password=password) for now in (at - 1_000_000, at + 1)] == [
        False,
        True,
    ]
    assert b"ENCRYPTED" in files.key.read_bytes()
    assert files.key.stat().st_mode & 0o077 == 0
    assert own_tls._is_due(files, names, now=at - 1_000_000, password="another"), "the root key was replaced"
    assert own_tls._is_due(files, names[:0], now=at - 1_000_000, password=password), "the names have changed"
    files.key.unlink()
    assert await certs.renew_tls(world) is True
    made = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    await revoke(world, f"{made.serial_number:032x}")
    assert await certs.renew_tls(world) is True
    assert await certs.renew_tls(world) is False


@pytest.mark.parametrize("kind", [AuthorityKind.ROOT, AuthorityKind.INTERMEDIATE])
async def test_a_rotation_of_the_authority_renews_the_certificate_of_the_server(
    client: Client, tmp_path: Path, kind: AuthorityKind
) -> None:
    world = TlsClient(client).world
    config = replace(world.config, tls="auto", data_dir=str(tmp_path))
    files, world = certs.tls_files(config), dataclasses.replace(world, config=config)
    assert await certs.renew_tls(world) is True
    keys = generate_keys("P-256")
    await act(world, "authority.rotate", lambda a: rotate_authority(a, kind, keys, overlap_s=0, config=config))
    assert await certs.renew_tls(world) is True
    active = authorities.active(world.db.read(), AuthorityKind.INTERMEDIATE)
    assert active is not None
    made, above = x509.load_pem_x509_certificates(files.certificate.read_bytes())[:2]
    assert above.public_bytes(Encoding.DER) == active.certificate
    made.verify_directly_issued_by(above)
    assert await certs.renew_tls(world) is False


async def test_a_new_root_is_in_the_file_for_clients_before_the_root_signs(client: Client, tmp_path: Path) -> None:
    world = TlsClient(client).world
    config = replace(world.config, tls="auto", data_dir=str(tmp_path))
    files, world = certs.tls_files(config), dataclasses.replace(world, config=config)
    assert await certs.renew_tls(world) is True
    before, keys = files.roots.read_bytes(), generate_keys("P-256")
    await act(world, "authority.rotate", lambda a: rotate_authority(a, AuthorityKind.ROOT, keys, config=config))
    assert await certs.renew_tls(world) is False, "the earlier root signs until the overlap ends"
    assert files.roots.read_bytes().startswith(before)
    assert len(x509.load_pem_x509_certificates(files.roots.read_bytes())) == 2


def test_contradictory_tls_settings_are_refused(tmp_path: Path) -> None:
    data_dir = str(tmp_path)
    assert load_config(None, environ={}, data_dir=data_dir, tls="auto").has_tls
    with pytest.raises(Invalid, match="not both"):
        load_config(None, environ={}, data_dir=data_dir, tls="auto", tls_cert="a", tls_key="b")
    with pytest.raises(Invalid, match="needs a TLS certificate"):
        load_config(None, environ={}, data_dir=data_dir, mtls_listen="127.0.0.1:0")
    with pytest.raises(Invalid, match="configuration"):
        load_config(None, environ={}, data_dir=data_dir, tls="on")


def test_a_server_gets_its_tls_certificate_from_its_own_authority_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    serials = set[int]()
    for _ in range(2):
        with PreparedServer(folder, "--tls", "auto", "--mtls-listen", "127.0.0.1:0") as server:
            described = json.loads((folder / "server.json").read_text())
            assert server.url.startswith("https://127.0.0.1:")
            for url in (server.url, described["mtls_url"]):
                with httpx2.Client(verify=context_of(folder / "ca.pem"), timeout=PATIENCE_S) as http:
                    assert http.get(f"{url}/livez").status_code == 200
                serials.add(shown_serial(int(url.rpartition(":")[2]), folder / "ca.pem"))
            assert server.ostiary("agent", "list") is not None
    assert len(serials) == 1, "a restart keeps the certificate"


async def test_a_server_in_recovery_starts_with_its_present_certificate(client: Client, tmp_path: Path) -> None:
    world = TlsClient(client).world
    config = replace(world.config, tls="auto", data_dir=str(tmp_path))
    files, world = certs.tls_files(config), dataclasses.replace(world, config=config)
    assert await certs.renew_tls(world) is True
    before = files.certificate.read_bytes()
    await lose(world)
    world = dataclasses.replace(world, config=replace(config, public_url="https://other.example"))
    with pytest.raises(InRecovery):
        await certs.renew_tls(world)
    await certs.renew_tls_at_start(world)
    assert files.certificate.read_bytes() == before
    files.key.unlink()
    with pytest.raises(InRecovery):
        await certs.renew_tls_at_start(world)


def test_a_server_starts_with_a_database_copy_older_than_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, copy = tmp_path / "data", tmp_path / "copy.db"
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    with PreparedServer(folder, "--tls", "auto"):
        pass
    shutil.copy(folder / "ostiary.db", copy)
    (folder / "tls.pem").unlink()
    with PreparedServer(folder, "--tls", "auto"):
        pass
    for path in folder.glob("ostiary.db*"):
        path.unlink()
    shutil.copy(copy, folder / "ostiary.db")
    with PreparedServer(folder, "--tls", "auto") as server:
        assert server.ostiary("recover")["recovery"]
        with httpx2.Client(verify=context_of(folder / "ca.pem"), timeout=PATIENCE_S) as http:
            assert http.get(f"{server.url}/livez").status_code == 200


def test_a_running_server_presents_a_new_certificate_that_clients_of_either_root_accept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    with PreparedServer(folder, "--tls", "auto") as server:
        port, old = int(server.url.rpartition(":")[2]), tmp_path / "old.pem"
        old.write_bytes((folder / "ca.pem").read_bytes())
        before = shown_serial(port, old)
        server.ostiary("ca", "rotate", "root", "--overlap", "0")
        eventually(lambda: shown_serial(port, old) != before)
        new = tmp_path / "new.pem"
        roots = x509.load_pem_x509_certificates((folder / "ca.pem").read_bytes())
        new.write_bytes(roots[0].public_bytes(Encoding.PEM))
        assert (len(roots), new.read_bytes() in old.read_bytes()) == (2, False)
        assert shown_serial(port, new) == shown_serial(port, old)


def shown_serial(port: int, roots: Path) -> int:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context_of(roots).wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        assert connection.version() == "TLSv1.3"
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


@pytest.mark.parametrize(
    ("listen", "public_url", "names"),
    [
        ("127.0.0.1:8700", "https://127.0.0.1:8700", ["ip:127.0.0.1", "dns:localhost"]),
        ("[::1]:8700", "https://[::1]:8700", ["ip:::1", "dns:localhost"]),
        ("0.0.0.0:8700", "https://id.example.com", ["dns:id.example.com"]),
        ("10.0.0.1:8700", "https://id.example.com", ["dns:id.example.com", "ip:10.0.0.1"]),
        ("127.0.0.1:8700", "https://id.example.com", ["dns:id.example.com", "ip:127.0.0.1", "dns:localhost"]),
    ],
)
def test_the_names_of_a_server_on_a_loopback_address_include_localhost(
    config: Config, listen: str, public_url: str, names: list[str]
) -> None:
    """The link of the first sign-in has the host `localhost`, because passkeys need a name."""
    found = own_tls.server_names(replace(config, listen=listen, public_url=public_url))
    assert list(map(str, found[:-1])) == names
