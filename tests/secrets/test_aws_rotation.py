"""Rotation by the API of AWS Secrets Manager: `RotateSecret` and `CancelRotateSecret` act on the rotation that an
administrator has set, and the service of the secret gets a signed call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.live_server import ServerFixture, own_server
from harness.patience import eventually
from ostiary.cli.secrets import _rotation_row
from tests.secrets.aws_fixtures import AwsStage, refused
from tests.secrets.vault_fixtures import POLICIES, VaultStage
from tests.support.webhook_receiver import Receiver, receiving

DAY_S = 86_400
FORBID = """
@id("no-rotation")
forbid (principal, action in [Action::"write_secret", Action::"delete_secret"], resource is Secret)
when { ["rotate", "cancel-rotation"].contains(context.operation) };
"""

KEEP = """
@id("no-deletion") forbid (principal, action == Action::"delete_secret", resource is Secret);
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsStage]:
    """An agent at a server that can call services on this machine."""
    folder = tmp_path_factory.mktemp("rotation")
    settings = folder / "ostiary.toml"
    settings.write_text('private_hosts = "127.0.0.1"\n')
    with own_server(folder, "--config", str(settings)) as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES}})
        yield AwsStage(VaultStage(live_server))


@pytest.fixture
def service() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class RotatedSecret:
    """A secret whose member `password` is rotated by a service."""

    def __init__(self, aws: AwsStage, service: Receiver, name: str, *, grace: int = 0, days: int = 30) -> None:
        self.aws, self.service, self.name = aws, service, f"{aws.vault.folder}/{name}"
        aws.client.create_secret(Name=self.name, SecretString='{"user": "shop", "password": "first"}')
        rotation = {"path": f"secret/{self.name}", "member": "password", "url": service.url}
        self.server: ServerFixture = aws.vault.live_server
        self.server.api("POST", "/secrets/rotations", {**rotation, "period": days * DAY_S, "grace": grace})

    def rotate(self, **more: Any) -> dict[str, Any]:
        return dict(self.aws.unchecked.rotate_secret(SecretId=self.name, **more))

    def describe(self) -> dict[str, Any]:
        return dict(self.aws.client.describe_secret(SecretId=self.name))

    def read(self, **version: str) -> dict[str, Any]:
        return dict(json.loads(self.aws.client.get_secret_value(SecretId=self.name, **version)["SecretString"]))

    @property
    def sent(self) -> list[str]:
        """The new values that the service was sent."""
        bodies = [json.loads(body) for _, body in self.service.heard]
        return [body["data"]["value"] for body in bodies if body["type"] == "secret.rotate"]

    @property
    def row(self) -> dict[str, Any]:
        """The rotation, as administrators see it."""
        rows = self.server.api("GET", "/secrets/rotations")["rotations"]
        [row] = [one for one in rows if one["path"] == f"secret/{self.name}"]
        return dict(row)


def test_a_secret_is_rotated_by_its_service_and_the_token_is_the_id_of_the_version(
    aws: AwsStage, service: Receiver
) -> None:
    secret, token = RotatedSecret(aws, service, "rotated"), "r" * 32
    before = secret.describe()
    assert (before["RotationEnabled"], before["RotationRules"]) == (True, {"AutomaticallyAfterDays": 30})
    assert "LastRotatedDate" not in before
    assert secret.rotate(ClientRequestToken=token)["VersionId"] == token
    [new] = secret.sent
    assert secret.read() == secret.read(VersionId=token) == {"user": "shop", "password": new}
    assert secret.read(VersionStage="AWSPREVIOUS")["password"] == "first"
    shown = secret.describe()
    assert shown["VersionIdsToStages"][token] == ["AWSCURRENT"]
    assert shown["NextRotationDate"] - shown["LastRotatedDate"] == timedelta(days=30)
    [listed] = aws.client.list_secrets(Filters=[{"Key": "name", "Values": [secret.name]}])["SecretList"]
    for member in ("RotationEnabled", "RotationRules", "LastRotatedDate", "NextRotationDate"):
        assert listed[member] == shown[member]
    assert secret.rotate(ClientRequestToken=token)["VersionId"] == token
    assert secret.sent == [new], "the same token rotates once"
    entry = aws.vault.entries("vault.write")[1]
    assert (entry["object"], entry["detail"]["operation"]) == (f"secret/{secret.name}", "rotate")
    assert new not in repr(secret.server.entries(limit=300))


def test_a_rotation_schedule_is_given_in_days_a_rate_or_a_cron_expression(aws: AwsStage, service: Receiver) -> None:
    secret = RotatedSecret(aws, service, "scheduled", grace=7200, days=2000)
    assert secret.describe()["RotationRules"] == {"ScheduleExpression": "rate(2000 days)"}
    for rules, shown in (
        ({"AutomaticallyAfterDays": 1}, {"AutomaticallyAfterDays": 1}),
        ({"AutomaticallyAfterDays": 1000}, {"AutomaticallyAfterDays": 1000}),
        ({"ScheduleExpression": "rate(3 hours)"}, {"ScheduleExpression": "rate(3 hours)"}),
        ({"ScheduleExpression": "rate(1 day)"}, {"AutomaticallyAfterDays": 1, "ScheduleExpression": "rate(1 day)"}),
        (
            {"ScheduleExpression": "rate(10 days)", "Duration": "3h"},
            {"AutomaticallyAfterDays": 10, "ScheduleExpression": "rate(10 days)", "Duration": "3h"},
        ),
        (
            {"ScheduleExpression": "cron(0 8 ? * MON *)", "Duration": "2h"},
            {"AutomaticallyAfterDays": 7, "ScheduleExpression": "cron(0 8 ? * MON *)", "Duration": "2h"},
        ),
        ({"AutomaticallyAfterDays": 1000, "Duration": "24h"}, {"AutomaticallyAfterDays": 1000, "Duration": "24h"}),
        ({"AutomaticallyAfterDays": 1000}, {"AutomaticallyAfterDays": 1000}),
    ):
        assert "VersionId" not in secret.rotate(RotationRules=rules, RotateImmediately=False)
        assert secret.describe()["RotationRules"] == shown
    wrong: list[dict[str, Any]] = [
        {"AutomaticallyAfterDays": 1001},
        {"ScheduleExpression": "rate(1001 days)"},
        {"ScheduleExpression": "rate(0 hours)"},
        {"ScheduleExpression": "rate(2 hours)"},  # not longer than the grace period
        {"ScheduleExpression": "rate(90 minutes)"},
        {"ScheduleExpression": "cron(30 8 1 * ? *)"},
        {"ScheduleExpression": "cron(0 8 1 * 2 *)"},
        {"ScheduleExpression": "cron(0 8 15W * ? *)"},
        {"ScheduleExpression": "cron(0 0,1 * * ? *)"},  # not longer than the grace period
        {"ScheduleExpression": "cron(0 23 ? * MON *)", "Duration": "2h"},
        {"ScheduleExpression": "rate(3 hours)", "Duration": "4h"},
        {"AutomaticallyAfterDays": 1, "ScheduleExpression": "rate(1 day)"},
        {"AutomaticallyAfterDays": 1, "Duration": "0h"},
        {},
    ]
    for rules in wrong:
        refused("InvalidParameterException", secret.rotate, RotationRules=rules)
    assert secret.describe()["RotationRules"] == {"AutomaticallyAfterDays": 1000}
    assert (secret.sent, secret.read()["password"]) == ([], "first")


def test_a_cron_expression_sets_the_next_time_and_does_not_delay_a_rotation(aws: AwsStage, service: Receiver) -> None:
    secret = RotatedSecret(aws, service, "cron", days=30)

    def set_rules(expression: str) -> datetime:
        secret.rotate(RotationRules={"ScheduleExpression": expression}, RotateImmediately=False)
        shown: datetime = secret.describe()["NextRotationDate"].astimezone(UTC)
        return shown

    first = secret.describe()["NextRotationDate"]
    midnight = set_rules("cron(0 0 * * ? *)")
    assert (midnight.hour, midnight - datetime.now(UTC) <= timedelta(days=1)) == (0, True)
    assert set_rules("rate(30 days)") == first, "still 30 days after its configuration"
    monthly = "cron(0 0 1 * ? *)"  # up to 31 days
    message = refused(
        "InvalidParameterException",
        secret.rotate,
        RotationRules={"ScheduleExpression": monthly},
        RotateImmediately=False,
    )
    assert message.startswith("the period of a rotation is at most")
    secret.rotate(RotationRules={"ScheduleExpression": "cron(0 0 ? * 1 *)"})
    shown = secret.describe()
    assert (len(secret.sent), shown["NextRotationDate"].astimezone(UTC).isoweekday()) == (1, 7)


def test_an_agent_shortens_a_period_and_does_not_lengthen_it(aws: AwsStage, service: Receiver) -> None:
    """An agent with a stolen value cannot delay the end of the value."""
    secret = RotatedSecret(aws, service, "shortened", days=30)
    for days in (31, 1000):
        rules = {"AutomaticallyAfterDays": days}
        message = refused("InvalidParameterException", secret.rotate, RotationRules=rules, RotateImmediately=False)
        assert message.startswith(f"the period of a rotation is at most {30 * DAY_S} seconds")
    for days in (10, 20, 30):
        secret.rotate(RotationRules={"AutomaticallyAfterDays": days}, RotateImmediately=False)
        assert secret.row["period"] == days * DAY_S
    refused("InvalidParameterException", secret.rotate, RotationRules={"AutomaticallyAfterDays": 31})
    secret.server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + KEEP}})
    try:
        refused("AccessDeniedException", aws.unchecked.cancel_rotate_secret, SecretId=secret.name)
        secret.rotate()
    finally:
        secret.server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES}})
    assert (len(secret.sent), secret.describe()["RotationEnabled"]) == (1, True)


def test_a_cancelled_rotation_restarts_on_request(aws: AwsStage, service: Receiver) -> None:
    secret = RotatedSecret(aws, service, "cancelled", grace=3600)
    for resume in (False, True):
        aws.unchecked.cancel_rotate_secret(SecretId=secret.name)
        shown = secret.describe()
        assert (shown["RotationEnabled"], "NextRotationDate" in shown) == (False, False)
        assert shown["RotationRules"] == {"AutomaticallyAfterDays": 30}
        assert secret.row["next_at"] is None
        assert _rotation_row(secret.row)["next_at"] == "cancelled"
        secret.rotate(RotateImmediately=resume)
        assert secret.describe()["RotationEnabled"]
    [new] = secret.sent
    assert secret.read()["password"] == new
    message = refused("InvalidRequestException", aws.unchecked.cancel_rotate_secret, SecretId=secret.name)
    assert "grace period" in message
    assert "grace period" in refused("InvalidRequestException", secret.rotate)
    entry = aws.vault.entries("vault.write")[2]
    assert entry["detail"]["operation"] == "rotate"


def test_a_rotation_that_the_service_refuses_is_repeated_with_the_same_value_and_token(
    aws: AwsStage, service: Receiver
) -> None:
    secret, token = RotatedSecret(aws, service, "failing"), "f" * 32
    service.answers = [(500, {})]
    message = refused("InvalidRequestException", secret.rotate, ClientRequestToken=token)
    assert message.startswith("the secret was not rotated: the service answers 500")
    entries = secret.server.entries(limit=300)
    failures = [one["object"] for one in entries if one["action"] == "rotation.fail"]
    assert failures.count(f"secret/{secret.name}") == 1
    assert not [one for one in entries if one["action"] == "vault.request"], "the failure is recorded once"

    def is_rotated() -> bool:
        return token in secret.describe()["VersionIdsToStages"]

    eventually(is_rotated)
    assert len(secret.sent) == 2
    assert secret.read(VersionId=token) == secret.read() == {"user": "shop", "password": secret.sent[0]}


def test_a_rotation_needs_a_service_and_a_policy(aws: AwsStage, service: Receiver) -> None:
    name, client = f"{aws.vault.folder}/plain", aws.client
    client.create_secret(Name=name, SecretString="x")
    message = refused("InvalidRequestException", client.rotate_secret, SecretId=name)
    assert message.startswith("No Lambda rotation function ARN is associated with this secret.")
    refused("InvalidRequestException", client.cancel_rotate_secret, SecretId=name)
    arn = f"arn:aws:lambda:us-east-1:{'1' * 12}:function:rotate"
    message = refused("InvalidParameterException", client.rotate_secret, SecretId=name, RotationLambdaARN=arn)
    assert "AWS Lambda" in message
    for token, is_valid in (("t" * 31, False), ("t" * 32, True), ("t" * 64, True), ("t" * 65, False)):
        kind = "InvalidRequestException" if is_valid else "InvalidParameterException"
        refused(kind, aws.unchecked.rotate_secret, SecretId=name, ClientRequestToken=token)
    assert "RotationEnabled" not in client.describe_secret(SecretId=name)
    secret = RotatedSecret(aws, service, "guarded")
    for use in (aws.unchecked.rotate_secret, aws.unchecked.cancel_rotate_secret):
        refused("ResourceNotFoundException", use, SecretId=f"{name}-none")
        refused("AccessDeniedException", use, SecretId="agents/other/db")
    secret.server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + FORBID}})
    try:
        for use in (aws.unchecked.rotate_secret, aws.unchecked.cancel_rotate_secret):
            refused("AccessDeniedException", use, SecretId=secret.name)
    finally:
        secret.server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES}})
    client.delete_secret(SecretId=secret.name)
    for use in (aws.unchecked.rotate_secret, aws.unchecked.cancel_rotate_secret):
        refused("InvalidRequestException", use, SecretId=secret.name)
    assert secret.sent == []
