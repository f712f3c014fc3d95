"""Credentials in moto's AWS through the unchanged client `hvac`: users and sessions, what ends them, and refusals."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import msgspec
import pytest
from hvac import Client, exceptions

from harness.clock import Clock
from harness.live_server import ServerFixture, own_server
from harness.patience import eventually
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.model import AgentId
from ostiaryd.secrets import wire_aws_accounts
from ostiaryd.secrets.backends.aws_accounts import MEDIA_TYPE, parse_xml
from ostiaryd.secrets.flows import aws_accounts, leases, renew_envelopes, rotate_keys
from ostiaryd.secrets.flows.callers import token_digest
from ostiaryd.secrets.model.aws_account import (
    OLD_KEY_S,
    AwsCredentials,
    AwsCredentialType,
    AwsRole,
    AwsRoot,
    CreateCredentials,
    check_policy,
    check_role,
)
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.lease import TAKEOVER_S, Lease, LeaseState
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sigv4 import sign_request
from ostiaryd.secrets.store import leases as lease_store
from ostiaryd.secrets.store import tokens
from ostiaryd.tasks.model import standing_id
from tests.secrets.backend_fixtures import KEY, KEY_ID, REGION, aws_client, moto
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, VaultStage, seal_all, unseal
from tests.support.incident_fixtures import entries_of

EVERYTHING = '@id("aws") permit (principal is Agent, action, resource is Secret);'
ROLE = "arn:aws:iam::123456789012:role/reader"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of moto's AWS, with a group and a policy."""
    with moto(tmp_path_factory.mktemp("moto")) as url:
        iam = aws_client("iam", url)
        iam.create_group(GroupName="agents")
        iam.create_policy(PolicyName="reading", PolicyDocument=json.dumps(POLICY))
        yield url


@pytest.fixture(scope="module")
def server(amazon: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server that may use it, and one address where nothing listens."""
    folder = tmp_path_factory.mktemp("aws")
    settings = folder / "ostiary.toml"
    settings.write_text(f'data_dir = "{folder}/server"\nsecret_backends = "{amazon} http://127.0.0.1:1"\n')
    with own_server(folder, "--config", str(settings)) as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + EVERYTHING}})
        yield live_server


def connect(client: Client, url: str) -> None:
    client.secrets.aws.configure_root_iam_credentials(
        access_key=KEY_ID, secret_key=KEY, region=REGION, iam_endpoint=url, sts_endpoint=url
    )


@pytest.fixture(scope="module")
def operator(server: ServerFixture, amazon: str) -> Client:
    """An agent that has configured the access and the roles."""
    client = VaultStage(server).login()
    connect(client, amazon)
    make = client.secrets.aws.create_or_update_role
    make(name="user", credential_type="iam_user", policy_document=json.dumps(POLICY))
    client.write(
        "aws/roles/member",
        credential_type="iam_user",
        iam_groups=["agents"],
        user_path="/ostiary/",
        policy_arns=["arn:aws:iam::123456789012:policy/reading"],
    )
    make(name="reader", credential_type="assumed_role", role_arns=[ROLE], default_sts_ttl="15m", max_sts_ttl="1h")
    make(name="guest", credential_type="federation_token", policy_document=json.dumps(POLICY), default_sts_ttl="15m")
    return client


@pytest.fixture
def vault(server: ServerFixture, operator: Client) -> VaultStage:
    """A new agent."""
    return VaultStage(server)


def users(amazon: str) -> set[str]:
    return {user["UserName"] for user in aws_client("iam", amazon).list_users()["Users"]}


def identify(amazon: str, data: dict[str, Any]) -> str:
    keys = {"aws_access_key_id": data["access_key"], "aws_secret_access_key": data["secret_key"]}
    client = aws_client("sts", amazon, **keys, aws_session_token=data["security_token"])
    return str(client.get_caller_identity()["Arn"])


@pytest.mark.parametrize("role", ["user", "member"])
def test_an_iam_user_has_the_rights_of_its_role_and_is_deleted_with_its_lease(
    vault: VaultStage, amazon: str, role: str
) -> None:
    client = vault.login()
    answer = client.secrets.aws.generate_credentials(name=role)
    name, iam = vault.entries("vault.read")[0]["detail"]["username"], aws_client("iam", amazon)
    assert answer["lease_id"].startswith(f"aws/creds/{role}/")
    [key] = iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
    assert (key["AccessKeyId"], answer["data"]["security_token"]) == (answer["data"]["access_key"], None)
    assert identify(amazon, answer["data"]).rpartition("/")[2] == name
    if role == "user":
        assert iam.get_user_policy(UserName=name, PolicyName="ostiary")["PolicyDocument"] == POLICY
    else:
        assert iam.get_user(UserName=name)["User"]["Path"] == "/ostiary/"
        assert [one["GroupName"] for one in iam.list_groups_for_user(UserName=name)["Groups"]] == ["agents"]
        assert iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]
    assert client.sys.renew_lease(answer["lease_id"], increment=60)["lease_duration"] in (59, 60)
    assert client.sys.read_lease(answer["lease_id"])["data"]["ttl"] <= 60
    client.sys.revoke_lease(answer["lease_id"])
    eventually(lambda: name not in users(amazon))
    eventually(lambda: not vault.live_server.api("GET", "/leases", after=f"aws/creds/{role}/", limit=1)["leases"])
    assert answer["data"]["secret_key"] not in repr(vault.live_server.entries(limit=300))


@pytest.mark.parametrize("end", ["token", "agent"])
def test_iam_users_are_deleted_with_the_token_or_the_agent(vault: VaultStage, amazon: str, end: str) -> None:
    client = vault.login()
    client.secrets.aws.generate_credentials(name="user")
    client.secrets.aws.generate_credentials(name="member")
    names = {entry["detail"]["username"] for entry in vault.entries("vault.read")}
    assert names <= users(amazon)
    if end == "token":
        client.auth.token.revoke_self()
    else:
        vault.live_server.server.ostiary("agent", "suspend", vault.name)
    with pytest.raises(exceptions.Forbidden):
        client.secrets.aws.generate_credentials(name="user")
    eventually(lambda: not names & users(amazon))


def test_iam_users_of_a_role_are_deleted_by_their_lease_prefix(vault: VaultStage, amazon: str) -> None:
    client = vault.login()
    client.secrets.aws.generate_credentials(name="member")
    name = vault.entries("vault.read")[0]["detail"]["username"]
    assert "aws/" in client.sys.list_leases("")["data"]["keys"]
    assert "member/" in client.sys.list_leases("aws/creds")["data"]["keys"]
    assert client.sys.list_leases("aws/creds/member")["data"]["keys"]
    client.sys.revoke_prefix("aws/creds/member")
    [entry] = vault.live_server.entries(action="lease.end", limit=1)
    assert (entry["object"], entry["detail"]["count"] >= 1) == ("aws/creds/member", True)
    eventually(lambda: name not in users(amazon))


def test_sts_sessions_are_issued_for_an_assumed_role_and_a_federated_user(vault: VaultStage, amazon: str) -> None:
    client = vault.login()
    assumed = client.secrets.aws.generate_credentials(name="reader", endpoint="sts", ttl="900s")
    assert assumed["data"]["arn"].startswith("arn:aws:sts::123456789012:assumed-role/reader/v-")
    assert identify(amazon, assumed["data"]) == assumed["data"]["arn"]
    assert assumed["lease_duration"] <= 900
    shown = client.sys.read_lease(assumed["lease_id"])["data"]
    assert (assumed["renewable"], shown["renewable"]) == (False, False)
    with pytest.raises(exceptions.InvalidRequest, match="cannot be renewed"):
        client.sys.renew_lease(assumed["lease_id"], increment=60)
    assert client.sys.read_lease(assumed["lease_id"])["data"]["expire_time"] == shown["expire_time"]
    guest = client.secrets.aws.generate_credentials(name="guest", endpoint="sts", ttl="900s")
    assert ":federated-user/v-" in guest["data"]["arn"]
    client.sys.revoke_lease(guest["lease_id"])
    rest = [assumed["lease_id"]]
    eventually(
        lambda: (
            [
                row["lease_id"]
                for row in vault.live_server.server.ostiary("lease", "list")
                if row["database"] == "aws:session"
            ]
            == rest
        )
    )


def test_a_failed_creation_leaves_no_user(vault: VaultStage, operator: Client, amazon: str) -> None:
    """The user exists when its group turns out not to, and is deleted."""
    operator.write("aws/roles/lost", credential_type="iam_user", iam_groups=["no-such-group"])
    before = users(amazon)
    with pytest.raises(exceptions.BadGateway, match="NoSuchEntity to AddUserToGroup"):
        vault.login().secrets.aws.generate_credentials(name="lost")
    assert vault.entries("lease.abandon")
    eventually(lambda: users(amazon) <= before)


def test_an_aws_outage_creates_no_iam_user_and_delays_the_deletion(
    vault: VaultStage, operator: Client, amazon: str
) -> None:
    client = vault.login()
    answer = client.secrets.aws.generate_credentials(name="user")
    name = vault.entries("vault.read")[0]["detail"]["username"]
    connect(operator, "http://127.0.0.1:1")
    try:
        with pytest.raises(exceptions.BadGateway):
            client.secrets.aws.generate_credentials(name="user")
        client.sys.revoke_lease(answer["lease_id"])
        rows: list[dict[str, Any]] = []

        def has_failed() -> bool:
            rows[:] = vault.live_server.server.ostiary("lease", "list")
            return any(row["lease_id"] == answer["lease_id"] and row["error"] for row in rows)

        eventually(has_failed)
        assert name in users(amazon)
    finally:
        connect(operator, amazon)
    eventually(lambda: name not in users(amazon))


def test_refused_aws_requests_create_no_iam_user(vault: VaultStage, operator: Client, amazon: str) -> None:
    with pytest.raises(exceptions.Forbidden, match="does not permit the address"):
        connect(operator, "https://iam.example.com")
    with pytest.raises(exceptions.InvalidRequest, match="secret_key"):
        operator.secrets.aws.configure_root_iam_credentials(access_key="short", secret_key="short", region=REGION)
    aws, before = vault.login().secrets.aws, users(amazon)
    for wrong in (
        {"name": "none"},
        {"name": "user", "endpoint": "sts"},
        {"name": "reader", "role_arn": "arn:aws:iam::123456789012:role/admin"},
        {"name": "reader", "ttl": "899s"},
        {"name": "reader", "ttl": "3601s"},
        {"name": "user", "ttl": "86401s"},
    ):
        with pytest.raises(exceptions.InvalidRequest):
            aws.generate_credentials(**wrong)
    assert users(amazon) == before
    with pytest.raises(exceptions.UnexpectedError, match="unsupported operation"):
        operator.read("aws/config/rotate-root")
    assert operator.secrets.aws.read_role("reader")["data"]["role_arns"] == [ROLE]
    assert set(operator.secrets.aws.list_roles()["data"]["keys"]) >= {"guest", "member", "reader", "user"}
    operator.secrets.aws.configure_lease(lease="5m", lease_max="10m")
    assert operator.secrets.aws.read_lease_config()["data"] == {"lease": "5m0s", "lease_max": "10m0s"}
    assert "secret" not in operator.read("aws/config/root")["data"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"credential_type": AwsCredentialType.ROLE},
        {"credential_type": AwsCredentialType.USER},
        {"credential_type": AwsCredentialType.USER, "role_arns": (ROLE,), "policy_document": "{}"},
        {"credential_type": AwsCredentialType.ROLE, "role_arns": ("arn:aws:iam::1:role/x",)},
        {"credential_type": AwsCredentialType.ROLE, "role_arns": ("arn:aws:iam::123456789012:policy/x",)},
        {"credential_type": AwsCredentialType.ROLE, "role_arns": (ROLE,) * 11},
        {"credential_type": AwsCredentialType.ROLE, "role_arns": (ROLE,), "groups": ("agents",)},
        {"credential_type": AwsCredentialType.ROLE, "role_arns": (ROLE,), "default_ttl": 899 * SECOND},
        {"credential_type": AwsCredentialType.ROLE, "role_arns": (ROLE,), "max_ttl": 43_201 * SECOND},
        {"credential_type": AwsCredentialType.USER, "groups": ("a/b",)},
        {"credential_type": AwsCredentialType.USER, "groups": ("a",), "user_path": "x"},
    ],
)
def test_a_contradictory_aws_role_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        check_role(AwsRole(**{"max_ttl": 43_200 * SECOND, **wrong}))


def test_a_policy_document_without_statements_is_refused() -> None:
    assert json.loads(check_policy(json.dumps(POLICY))) == POLICY == json.loads(check_policy(POLICY))
    for wrong in ("{", "[]", "{}", json.dumps(POLICY | {"Sid": "x" * 9000})):
        with pytest.raises(Invalid, match="policy_document"):
            check_policy(wrong)


POLICY_ARN = "arn:aws:iam::123456789012:policy/x"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy_arns": (POLICY_ARN,) * 11}, "a role may have at most 10 ARNs of the kind policy"),
        (
            {"policy_arns": (POLICY_ARN,) * 10, "permissions_boundary": POLICY_ARN},
            "a role may have at most 10 ARNs of the kind policy",
        ),
        ({"policy_arns": (POLICY_ARN, ROLE)}, f"{ROLE!r} is not an ARN of a policy"),
        ({"role_arns": (POLICY_ARN,)}, f"{POLICY_ARN!r} is not an ARN of a role"),
        ({"role_arns": ("",)}, "'' is not an ARN of a role"),
    ],
)
def test_an_arn_is_refused_with_its_fault(wrong: dict[str, Any], message: str) -> None:
    check_role(AwsRole(credential_type=AwsCredentialType.USER, policy_arns=(POLICY_ARN,) * 10))
    with pytest.raises(Invalid) as refused:
        check_role(AwsRole(credential_type=AwsCredentialType.USER, **wrong))
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("x", "`policy_document`: not JSON: "),
        ('{"Statement": 1, "Statement": 2}', "`policy_document`: an object of the JSON text has the same member twice"),
        (json.dumps({"Statement": "x" * 8176}), "`policy_document`: the JSON text is longer than 8192 bytes"),
        ({"Statement": "x" * 8177}, "`policy_document` has more than 8192 characters"),
        ("[]", "`policy_document` is not a JSON object with the member `Statement`"),
    ],
    ids=["no JSON", "twice", "long text", "long object", "no object"],
)
def test_a_policy_document_is_refused_with_its_fault(document: Any, message: str) -> None:
    for longest in (json.dumps({"Statement": "x" * 8175}), {"Statement": "x" * 8176}):
        check_policy(longest)
    with pytest.raises(Invalid) as refused:
        check_policy(document)
    assert refused.value.message.startswith(message)


def test_a_response_that_is_not_plain_xml_is_refused() -> None:
    unknown, bomb = b"<?xml version='1.0' encoding='x'?><a/>", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
    wide = [f"<?xml version='1.0' encoding='utf-16'?>{bomb}".encode(f"utf-16{end}") for end in ("", "-le", "-be")]
    for wrong in (b"", b"{}", b"<a>", bomb.encode(), unknown, *wide):
        with pytest.raises(BackendFailed):
            parse_xml(wrong)


async def test_an_iam_user_that_does_not_exist_yet_does_not_count_as_deleted(
    world: World, bot: VaultAgent, amazon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease ends before AWS has the user, whom a request under way may still create."""
    world = dataclasses.replace(world, config=msgspec.structs.replace(world.config, secret_backends=amazon))
    root = AwsRoot(access_key=KEY_ID, region=REGION, iam_endpoint=amazon, sts_endpoint=amazon)
    role = AwsRole(credential_type=AwsCredentialType.USER, policy_document=json.dumps(POLICY))

    def begin(act: Act) -> CreateCredentials:
        aws_accounts.put_root(act, root, KEY)
        aws_accounts.put_role(act, "user", role)
        act.entry.agent, act.entry.task = bot.client.id, standing_id(AgentId(bot.client.id))
        token = tokens.get(act.tx, token_digest(act.tx.keys, bot.token))
        assert token is not None
        act.entry.token = token.holding
        return aws_accounts.begin_lease(act, "user", is_session=False, arn="", ttl=None)

    async def revoke() -> Lease | None:
        await wire_aws_accounts.revoke_due(world)
        await asyncio.gather(*world.get_singleton(wire_aws_accounts.AwsRevokers).running.values())
        return lease_store.get(world.db.read(), owed.lease.lease_id)

    owed = await act(world, "vault.read", begin)
    await act(world, "lease.end", lambda act: leases.revoke_lease(act, owed.lease.lease_id))
    left = await revoke()
    assert left is not None
    assert (left.state, left.due_at) == (LeaseState.REVOKING, left.issued_at + TAKEOVER_S * SECOND)
    with pytest.raises(Conflict, match="lease ended"):
        await wire_aws_accounts._make(world, owed)
    aws_client("iam", amazon).create_user(UserName=owed.lease.username)  # a request that AWS was slow to carry out
    monkeypatch.setattr(wire_aws_accounts, "TAKEOVER_S", 0)
    await world.writer.submit(lambda tx: lease_store.retry(tx, owed.lease.lease_id))
    assert await revoke() is None
    assert owed.lease.username not in users(amazon)


# --- the server's own key


class OwnUser:
    """The user of a server at AWS, with one access key."""

    _numbers = itertools.count(1)

    def __init__(self, amazon: str) -> None:
        self.amazon, self.name, self.iam = amazon, f"server-{next(self._numbers)}", aws_client("iam", amazon)
        self.iam.create_user(UserName=self.name)
        self.key = self.create_key()

    def create_key(self) -> dict[str, str]:
        made: dict[str, str] = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        return made

    @property
    def root(self) -> AwsRoot:
        """The access to AWS with that key."""
        return AwsRoot(
            access_key=self.key["AccessKeyId"], region=REGION, iam_endpoint=self.amazon, sts_endpoint=self.amazon
        )

    @property
    def keys(self) -> set[str]:
        return {one["AccessKeyId"] for one in self.iam.list_access_keys(UserName=self.name)["AccessKeyMetadata"]}


def test_the_aws_access_key_of_the_server_is_rotated_on_request(
    vault: VaultStage, operator: Client, amazon: str
) -> None:
    user, aws = OwnUser(amazon), operator.secrets.aws
    second = user.create_key()["AccessKeyId"]
    aws.configure_root_iam_credentials(
        access_key=user.key["AccessKeyId"],
        secret_key=user.key["SecretAccessKey"],
        region=REGION,
        iam_endpoint=amazon,
        sts_endpoint=amazon,
    )
    try:
        with pytest.raises(exceptions.InvalidRequest, match="a second access key"):
            aws.rotate_root_iam_credentials()
        user.iam.delete_access_key(UserName=user.name, AccessKeyId=second)
        new = aws.rotate_root_iam_credentials()["data"]["access_key"]
        assert user.keys == {user.key["AccessKeyId"], new}, "requests under way still use the old key"
        assert operator.read("aws/config/root")["data"]["access_key"] == new
        assert vault.login().secrets.aws.generate_credentials(name="user")["data"]["access_key"]
        with pytest.raises(exceptions.VaultError, match="in progress"):
            aws.rotate_root_iam_credentials()
    finally:
        connect(operator, amazon)
    [entry] = vault.live_server.entries(action="lease.connect", limit=1)
    assert entry["detail"]["left"] == [new, user.key["AccessKeyId"]], "what another access leaves at AWS"


@pytest.fixture
async def rotating(world: World, amazon: str) -> tuple[World, OwnUser]:
    """A server that has begun to replace its key at AWS, and its user there."""
    world = dataclasses.replace(world, config=msgspec.structs.replace(world.config, secret_backends=amazon))
    user = OwnUser(amazon)
    await act(world, "lease.connect", lambda a: aws_accounts.put_root(a, user.root, user.key["SecretAccessKey"]))
    await act(world, "lease.begin_rotation", aws_accounts.begin_root_rotation)
    return world, user


async def test_a_new_access_key_whose_response_was_lost_is_deleted_before_the_old_key(
    rotating: tuple[World, OwnUser], clock: Clock
) -> None:
    world, user = rotating
    lost, old = user.create_key()["AccessKeyId"], user.key["AccessKeyId"]
    await wire_aws_accounts.rotate_due(world)
    assert user.keys == {old, lost}, "the server that began has its time"
    clock.advance(TAKEOVER_S)
    await seal_all(world)
    await wire_aws_accounts.rotate_due(world)
    assert user.keys == {old, lost}
    await unseal(world)
    await wire_aws_accounts.rotate_due(world)
    config, secret_key = aws_accounts.open_root(world.db.read(), keys=world.keys)
    assert user.keys == {old, config.access_key}
    assert config.access_key not in (old, lost)
    clock.advance(OLD_KEY_S - 1)
    await wire_aws_accounts.rotate_due(world)
    assert old in user.keys
    await act(world, "vault.rotate", rotate_keys)
    await renew_envelopes(world)
    clock.advance(1)
    await wire_aws_accounts.rotate_due(world)
    assert user.keys == {config.access_key}
    assert aws_accounts.find_root(world.db.read()).config.rotation is None
    assert secret_key not in str([entries_of(world, f"lease.{kind}") for kind in ("keep_key", "rotate_root")])


async def test_a_stored_new_access_key_is_used_after_a_failed_rotation(
    rotating: tuple[World, OwnUser], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, user = rotating
    monkeypatch.setattr(wire_aws_accounts, "NEW_KEY_DELAYS_S", ())
    old, made = user.key["AccessKeyId"], user.create_key()
    new = AwsCredentials(made["AccessKeyId"], made["SecretAccessKey"])
    await act(world, "lease.keep_key", lambda a: aws_accounts.keep_new_key(a, old, new))
    down = msgspec.structs.replace(world.config, secret_backends="http://127.0.0.1:1")
    clock.advance(TAKEOVER_S)
    await wire_aws_accounts.rotate_due(dataclasses.replace(world, config=down))
    [failure] = entries_of(world, "lease.rotate_fail")
    config, secret_key = aws_accounts.open_root(world.db.read(), keys=world.keys)
    assert (config.access_key, secret_key) == (old, user.key["SecretAccessKey"]), "the old key stays in force"
    assert config.rotation is not None
    assert (config.rotation.attempts, config.rotation.due_at) == (1, clock() + SECOND)
    await wire_aws_accounts.rotate_due(world)
    assert aws_accounts.find_root(world.db.read()).config == config, "the next attempt waits"
    clock.advance(1)
    await act(world, "vault.rotate", rotate_keys)
    await renew_envelopes(world)
    await wire_aws_accounts.rotate_due(world)
    config, secret_key = aws_accounts.open_root(world.db.read(), keys=world.keys)
    assert (config.access_key, secret_key) == new[:2]
    assert new.secret_key not in str(failure)
    with pytest.raises(Conflict):
        await act(world, "lease.rotate_root", lambda a: aws_accounts.use_new_key(a, old))


@pytest.mark.parametrize("service", ["iam", "sts"])
def test_requests_are_signed_as_the_client_of_aws_signs_them(service: str) -> None:
    body, now = b"Action=ListUsers&Version=2010-05-08", 1_795_944_000
    signed = {"host": "iam.amazonaws.com", "region": REGION, "key_id": KEY_ID, "secret": KEY}
    mine = sign_request(body, service=service, media_type=MEDIA_TYPE, now=now * SECOND, **signed)
    names = ("content-type", "host", "x-amz-date")
    theirs = botocore.awsrequest.AWSRequest(
        "POST", "https://iam.amazonaws.com/", data=body, headers={name: mine[name] for name in names}
    )
    theirs.context["timestamp"] = mine["x-amz-date"]
    signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials(KEY_ID, KEY), service, REGION)
    text = signer.string_to_sign(theirs, signer.canonical_request(theirs))
    assert mine["authorization"].endswith(f"Signature={signer.signature(text, theirs)}")
