"""Login methods of the types cert and kubernetes, at paths of the agents' choice: whom they log in, and until when."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import DER_cert_to_PEM_cert
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography import x509

from harness.client_certificates import Made, TestAuthority
from harness.registry_fixtures import newest_entry
from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.secrets.model.certificate_login import CertificateRole, admits
from ostiaryd.secrets.model.kubernetes_login import KubernetesRole, ServiceAccount, refusal_of
from tests.secrets.role_fixtures import done
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, enter_agent, permit_all
from tests.support.api_fixtures import reconfigured
from tests.support.certificate_fixtures import issue, put_policies, revoke
from tests.support.pem import certificate

if TYPE_CHECKING:
    from harness.clock import Clock
    from ostiaryd.ground.world import World

PROXY = "10.0.0.1"
"""The address of a proxy that forwards certificates, from which logins arrive."""
KEY = jose.generate("ES256")


@pytest.fixture
async def far(world: World) -> VaultAgent:
    """An agent at a server behind a proxy for certificates, which may reach a cluster on this machine."""
    behind = reconfigured(world, certificate_proxies="10.0.0.0/8", private_hosts="127.0.0.1")
    await permit_all(world)
    return await (await enter_agent(world, build_app(behind), "bot")).login()


def now_of(world: World) -> datetime:
    return datetime.fromtimestamp(world.now() // 1_000_000, UTC)


async def ask_login(bot: VaultAgent, mount: str, body: dict[str, Any], made: Made | None = None) -> Any:
    fields = [] if made is None else made.fields
    return await bot.ask("POST", f"auth/{mount}/login", body, token="", address=PROXY, headers=fields)


async def log_in(bot: VaultAgent, mount: str, body: dict[str, Any], made: Made | None = None) -> VaultAgent:
    """The agent with the token of a login."""
    answer = await ask_login(bot, mount, body, made)
    assert answer.status == 200, answer.body
    worker = VaultAgent(bot.client, bot.name)
    worker.token = answer.json["auth"]["client_token"]
    return worker


async def refusal(bot: VaultAgent, mount: str, body: dict[str, Any], made: Made | None = None) -> tuple[int, str]:
    """The status and the message of a refused login, which leaves an entry without the credential."""
    answer = await ask_login(bot, mount, body, made)
    assert answer.status in (400, 403), answer.body
    entry = newest_entry(bot.client.world)
    assert (entry.outcome, entry.reasons[0].code) == ("refused", "login_refused")
    assert not body.get("jwt") or body["jwt"] not in repr(entry)
    return answer.status, str(answer.json["errors"][0])


async def status(worker: VaultAgent) -> int:
    return await worker.status("GET", "auth/token/lookup-self", address=PROXY)


async def look(worker: VaultAgent) -> dict[str, Any]:
    shown: dict[str, Any] = (await done(worker, "GET", "auth/token/lookup-self", address=PROXY))["data"]
    return shown


# --- cert


async def test_a_certificate_acts_as_the_agent_that_wrote_the_role(world: World, far: VaultAgent) -> None:
    authority = TestAuthority(at=now_of(world))
    made = authority.issue("CN=web.example,OU=shop", names=(x509.DNSName("web.example"),), at=now_of(world))
    await done(far, "POST", "sys/auth/tls", {"type": "cert"})
    role = {"certificate": authority.pem, "allowed_common_names": "*.example", "display_name": "shop"}
    await done(far, "POST", "auth/tls/certs/web", {**role, "token_policies": "default", "token_ttl": "1h"})
    shown = (await done(far, "GET", "auth/tls/certs/web"))["data"]
    assert (shown["certificate"], shown["allowed_common_names"]) == (authority.pem, ["*.example"])
    assert (shown["display_name"], shown["token_ttl"], shown["required_extensions"]) == ("shop", 3600, [])
    assert (await done(far, "LIST", "auth/tls/certs"))["data"]["keys"] == ["web"]
    for body in ({}, {"name": "web"}):
        worker = await log_in(far, "tls", body, made)
        login = newest_entry(world)
        assert (login.action, login.agent) == ("vault.login", far.client.id)
        assert (login.detail or {}).items() >= {"role": "auth/tls/web", "user": "shop"}.items()
    token = await look(worker)
    assert (token["display_name"], token["path"], token["policies"]) == ("tls-shop", "auth/tls/login", ["default"])
    serial = str(made.certificate.serial_number)
    expected = {"cert_name": "web", "common_name": "web.example", "serial_number": serial}
    assert token["meta"].items() >= expected.items()
    assert await refusal(far, "tls", {"name": "web"}) == (400, "client certificate must be supplied")
    assert await refusal(far, "tls", {"name": "none"}, made) == (400, "role 'none' could not be found")
    stranger = TestAuthority(at=now_of(world)).issue("CN=web.example", at=now_of(world))
    assert "leads to no trust anchor" in (await refusal(far, "tls", {"name": "web"}, stranger))[1]
    other = authority.issue("CN=web.test", at=now_of(world))
    assert "does not admit the names" in (await refusal(far, "tls", {"name": "web"}, other))[1]
    assert "0 roles admit it" in (await refusal(far, "tls", {}, other))[1]
    await done(far, "POST", "auth/tls/certs/second", {"certificate": authority.pem})
    assert "2 roles admit it" in (await refusal(far, "tls", {}, made))[1]
    await log_in(far, "tls", {}, other)
    await done(far, "DELETE", "auth/tls/certs/web")
    assert await status(worker) == 403


async def test_a_certificate_role_with_missing_anchors_or_unknown_members_is_refused(
    world: World, far: VaultAgent
) -> None:
    pem = TestAuthority(at=now_of(world)).pem
    await done(far, "POST", "sys/auth/tls", {"type": "cert"})
    wrong: dict[str, Any]
    for wrong in (
        {},
        {"certificate": "x"},
        {"certificate": pem * 9},
        {"certificate": pem, "allowed_names": ["x"] * 65},
        {"certificate": pem, "allowed_names": " , "},
        {"certificate": pem, "token_bound_cidrs": [""]},
        {"certificate": pem, "allowed_names": ["x" * 1025]},
        {"certificate": pem, "required_extensions": ["1.2.3:x"]},
        {"certificate": pem, "ocsp_enabled": True},
        {"certificate": pem, "token_type": "batch"},
    ):
        assert await far.status("POST", "auth/tls/certs/web", wrong) == 400, wrong
    assert await far.status("GET", "auth/tls/certs/web") == 404
    await done(far, "POST", "auth/tls/certs/web", {"certificate": pem * 8, "allowed_names": ["x" * 1024] * 8})
    for method, path in (("POST", "auth/tls/config"), ("POST", "auth/tls/role/web"), ("POST", "auth/tls/crls/a")):
        assert await far.status(method, path, {}) == 404, path


async def test_a_token_expires_with_the_certificate_of_its_login(world: World, far: VaultAgent, clock: Clock) -> None:
    now = now_of(world)
    authority = TestAuthority(at=now)
    made = authority.issue("CN=web", at=now, ends=timedelta(minutes=5))
    await done(far, "POST", "sys/auth/tls", {"type": "cert"})
    await done(far, "POST", "auth/tls/certs/web", {"certificate": authority.pem, "token_ttl": "1h"})
    worker = await log_in(far, "tls", {}, made)
    end = made.certificate.not_valid_after_utc.timestamp() + 1 - world.now() / 1_000_000
    clock.advance(end - 1)
    await look(worker)
    await log_in(far, "tls", {"name": "web"}, made)
    clock.advance(1)
    assert await status(worker) == 403
    assert "expired" in (await refusal(far, "tls", {"name": "web"}, made))[1]


async def test_a_certificate_of_this_server_logs_in_until_it_is_revoked(world: World, far: VaultAgent) -> None:
    certificates = '@id("certs") permit (principal is Agent, action == Action::"issue_certificate", resource is Agent);'
    await put_policies(
        world, f'{POLICIES}@id("all") permit (principal is Agent, action, resource is Secret);{certificates}'
    )
    issued = [await issue(world, agent=far.client.id) for _ in range(2)]
    made, kept = (Made(x509.load_der_x509_certificate(one.certificate.der), None) for one in issued)
    pem = "".join(map(DER_cert_to_PEM_cert, issued[0].chain))
    await done(far, "POST", "sys/auth/tls", {"type": "cert"})
    orphans = 'path "auth/token/create-orphan" { capabilities = ["create", "update", "sudo"] }'
    await done(far, "POST", "sys/policies/acl/orphans", {"policy": orphans})
    await done(far, "POST", "auth/tls/certs/own", {"certificate": pem, "token_policies": "default,orphans"})
    workers = [await log_in(far, "tls", {"name": "own"}, one) for one in (made, kept)]
    for worker in (*workers,):
        child = VaultAgent(far.client, far.name)
        created = await done(worker, "POST", "auth/token/create-orphan", {}, address=PROXY)
        child.token = created["auth"]["client_token"]
        workers.append(child)
    assert [await status(worker) for worker in workers] == [200] * 4
    await revoke(world, issued[0].certificate.serial)
    assert [await status(worker) for worker in workers] == [403, 200, 403, 200]
    assert "was revoked" in (await refusal(far, "tls", {"name": "own"}, made))[1]


@pytest.mark.parametrize(
    ("role", "is_admitted"),
    [
        ({}, True),
        ({"allowed_names": ["web"]}, True),
        ({"allowed_names": ["a.example"]}, True),
        ({"allowed_names": ["me@a.example"]}, True),
        ({"allowed_names": ["spiffe://x/y"]}, False),
        ({"allowed_common_names": ["w*b"]}, True),
        ({"allowed_common_names": ["we"]}, False),
        ({"allowed_common_names": ["a.example"]}, False),
        ({"allowed_dns_sans": ["*.example"]}, True),
        ({"allowed_dns_sans": ["web"]}, False),
        ({"allowed_email_sans": ["*@a.example"]}, True),
        ({"allowed_email_sans": ["you@a.example"]}, False),
        ({"allowed_uri_sans": ["spiffe://x/*"]}, True),
        ({"allowed_uri_sans": ["spiffe://y/*"]}, False),
        ({"allowed_organizational_units": ["shop", "other"]}, True),
        ({"allowed_organizational_units": ["other"]}, False),
        ({"allowed_common_names": ["web"], "allowed_dns_sans": ["b.example"]}, False),
    ],
)
def test_each_name_list_of_a_certificate_role_admits_names_of_its_kind(
    role: dict[str, list[str]], is_admitted: bool
) -> None:
    names = (
        x509.DNSName("a.example"),
        x509.RFC822Name("me@a.example"),
        x509.UniformResourceIdentifier("spiffe://x/y"),
    )
    made = TestAuthority().issue("CN=web,OU=shop", names=names)
    assert admits(msgspec.convert(role, CertificateRole), made.certificate) is is_admitted


# --- kubernetes


class Cluster:
    """The TokenReview API of a cluster, over TLS. `accounts`: whose token the text of a token is."""

    def __init__(self, url: str, ca_pem: str) -> None:
        self.url, self.ca_pem = url, ca_pem
        self.accounts: dict[str, str] = {}
        self.audiences: list[str] = ["https://kubernetes"]
        self.reviewed: list[dict[str, Any]] = []
        self.answer: tuple[int, bytes] | None = None

    def review(self, path: str, authorization: str, review: dict[str, Any]) -> tuple[int, bytes]:
        self.reviewed.append({"path": path, **review})
        if self.answer is not None:
            return self.answer
        if authorization.removeprefix("Bearer ") not in self.accounts:
            return 401, b'{"kind": "Status", "code": 401}'
        username = self.accounts.get(review["spec"]["token"])
        status: dict[str, Any] = {"authenticated": False, "error": "invalid bearer token"}
        if username:
            status = {"authenticated": True, "user": {"username": username, "uid": "u-1", "groups": ["x"]}}
            if wanted := review["spec"].get("audiences"):
                status["audiences"] = sorted({*wanted} & {*self.audiences})
        return 201, json.dumps({**review, "status": status}).encode()


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = cluster.review(self.path, self.headers["authorization"], body)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context, file = certificate(folder, "localhost")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    pem = file.read_text()
    cluster = Cluster(f"https://127.0.0.1:{server.server_port}", pem[: pem.index("-----BEGIN PRIVATE")])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path) as running:
        yield running


def account_token(cluster: Cluster, username: str) -> str:
    """The token of a service account, or of another user, of a cluster."""
    text = jose.sign_jwt(KEY, typ="JWT", claims={"sub": username, "n": len(cluster.accounts)})
    cluster.accounts[text] = username
    return text


async def enable(bot: VaultAgent, cluster: Cluster, **role: Any) -> None:
    await bot.ask("POST", "sys/auth/k8s", {"type": "kubernetes"})
    await done(
        bot,
        "POST",
        "auth/k8s/config",
        {"kubernetes_host": cluster.url, "kubernetes_ca_cert": cluster.ca_pem, "disable_local_ca_jwt": True},
    )
    bounds = {"bound_service_account_names": "shop", "bound_service_account_namespaces": ["prod", "test-*"]}
    await done(bot, "POST", "auth/k8s/role/shop", {**bounds, **role})


async def test_a_service_account_acts_as_the_agent_that_wrote_the_role(
    world: World, far: VaultAgent, cluster: Cluster
) -> None:
    await enable(far, cluster, token_policies="default", audience="vault")
    cluster.audiences = ["vault"]
    config = (await done(far, "GET", "auth/k8s/config"))["data"]
    assert (config["kubernetes_host"], config["kubernetes_ca_cert"]) == (cluster.url, cluster.ca_pem)
    assert (config["disable_local_ca_jwt"], config["token_reviewer_jwt_set"]) == (True, False)
    role = (await done(far, "GET", "auth/k8s/role/shop"))["data"]
    assert role["bound_service_account_namespaces"] == ["prod", "test-*"]
    assert (role["alias_name_source"], role["audience"]) == ("serviceaccount_uid", "vault")
    jwt = account_token(cluster, "system:serviceaccount:prod:shop")
    worker = await log_in(far, "k8s", {"role": "shop", "jwt": jwt})
    assert newest_entry(world).agent == far.client.id
    token = await look(worker)
    assert (token["display_name"], token["policies"]) == ("k8s-prod-shop", ["default"])
    expected = {"role": "shop", "service_account_name": "shop", "service_account_namespace": "prod"}
    assert token["meta"].items() >= {**expected, "service_account_uid": "u-1"}.items()
    [review] = cluster.reviewed
    assert review["path"] == "/apis/authentication.k8s.io/v1/tokenreviews"
    assert (review["kind"], review["spec"]) == ("TokenReview", {"token": jwt, "audiences": ["vault"]})
    await log_in(far, "k8s", {"role": "shop", "jwt": account_token(cluster, "system:serviceaccount:test-1:shop")})
    cluster.audiences = ["other"]
    assert "audience" in (await refusal(far, "k8s", {"role": "shop", "jwt": jwt}))[1]
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, far.name, Verb.SUSPEND))
    assert await status(worker) == 403


async def test_the_cluster_determines_the_service_account_of_a_token(far: VaultAgent, cluster: Cluster) -> None:
    await enable(far, cluster)
    for username, why in (
        ("system:serviceaccount:prod:shop2", "service account name not authorized"),
        ("system:serviceaccount:prod2:shop", "namespace not authorized"),
        ("system:node:shop", "permission denied: the cluster's review does not confirm the token of a service account"),
        (
            "system:serviceaccount:prod:shop:x",
            "permission denied: the cluster's review does not confirm the token of a service account",
        ),
        ("shop", "permission denied: the cluster's review does not confirm the token of a service account"),
    ):
        assert await refusal(far, "k8s", {"role": "shop", "jwt": account_token(cluster, username)}) == (403, why)
    jwt = account_token(cluster, "system:serviceaccount:prod:shop")
    stranger = jose.sign_jwt(KEY, typ="JWT", claims={"sub": "x"})
    assert await refusal(far, "k8s", {"role": "shop", "jwt": stranger}) == (
        403,
        "permission denied: the cluster refuses the token as its own credential (401)",
    )
    cluster.answer = 403, b"{}"
    assert "may not ask" in (await refusal(far, "k8s", {"role": "shop", "jwt": jwt}))[1]
    count = len(cluster.reviewed)
    for wrong in ("", "x", "a.b.c", f"{jwt}\r\nx-y: z", jwt + " "):
        assert (await refusal(far, "k8s", {"role": "shop", "jwt": wrong}))[0] == 400
    assert await refusal(far, "k8s", {"role": "", "jwt": jwt}) == (400, "missing role")
    assert await refusal(far, "k8s", {"role": "none", "jwt": jwt}) == (400, "role 'none' could not be found")
    assert len(cluster.reviewed) == count, "no text that is no token leaves the server"
    for answer, status in (
        ((500, b""), 502),
        ((302, b""), 502),
        ((200, b"["), 403),
        ((200, b'{"status": 1}'), 502),
        ((200, b'{"status": {"user": []}}'), 502),
    ):
        cluster.answer = answer
        refused = await ask_login(far, "k8s", {"role": "shop", "jwt": jwt})
        assert refused.status == status, (answer, refused.body)
    for body in (b"{}", b'{"status": {"authenticated": false}}', b'{"status": {"authenticated": true}}'):
        cluster.answer = 200, body
        assert (await refusal(far, "k8s", {"role": "shop", "jwt": jwt}))[0] == 403
    cluster.answer = None
    await log_in(far, "k8s", {"role": "shop", "jwt": jwt})


async def test_a_kubernetes_method_accepts_only_a_cluster_that_the_operator_permits(
    far: VaultAgent, cluster: Cluster
) -> None:
    await enable(far, cluster)
    worker = await log_in(
        far, "k8s", {"role": "shop", "jwt": account_token(cluster, "system:serviceaccount:prod:shop")}
    )
    wrong: dict[str, Any]
    for wrong in (
        {},
        {"kubernetes_host": "http://cluster.example"},
        {"kubernetes_host": "https://169.254.169.254"},
        {"kubernetes_host": cluster.url, "kubernetes_ca_cert": "x"},
        {"kubernetes_host": cluster.url, "token_reviewer_jwt": "x"},
        {"kubernetes_host": cluster.url, "pem_keys": ["x"]},
    ):
        assert await far.status("POST", "auth/k8s/config", wrong) == 400, wrong
    bounds = {"bound_service_account_names": "shop", "bound_service_account_namespaces": "prod"}
    for wrong in (
        {"bound_service_account_names": ""},
        {"bound_service_account_namespaces": []},
        {"bound_service_account_names": ["x"] * 65},
        {"alias_name_source": "x"},
        {"bound_service_account_namespace_selector": "{}"},
    ):
        assert await far.status("POST", "auth/k8s/role/more", {**bounds, **wrong}) == 400, wrong
    await look(worker)
    await done(far, "POST", "auth/k8s/config", {"kubernetes_host": cluster.url})
    assert await status(worker) == 403, "another cluster's word"


@pytest.mark.parametrize(
    ("names", "namespaces", "audience", "why"),
    [
        ("*", "*", "", ""),
        ("sho*", "prod", "", ""),
        ("shop", "prod", "vault", ""),
        ("Shop", "prod", "", "service account name not authorized"),
        ("shop", "pro", "", "namespace not authorized"),
        ("shop", "prod", "other", "the token is not for the audience of the role"),
    ],
)
def test_a_role_admits_the_accounts_that_it_names(names: str, namespaces: str, audience: str, why: str) -> None:
    role = KubernetesRole(
        bound_service_account_names=["none", names], bound_service_account_namespaces=[namespaces], audience=audience
    )
    assert refusal_of(role, ServiceAccount("prod", "shop", "u", ["vault"])) == why
