"""The unchanged client `boto3` against the API of AWS Secrets Manager: secrets, signatures, and what is refused."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx2
import hvac
import msgspec
import pytest
from botocore.client import Config

from harness.live_server import ServerFixture
from harness.patience import eventually
from ostiary import ambient
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.world import World
from ostiaryd.secrets import wire_aws
from ostiaryd.secrets.flows import secret_pages
from ostiaryd.secrets.model.aws import ArnScope, PasswordOptions, make_password, read_value, render_value
from tests.secrets.aws_fixtures import REGION, AwsStage, post, refused
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, VaultStage


@pytest.fixture(scope="module")
def aws(vault_server: ServerFixture) -> AwsStage:
    return AwsStage(VaultStage(vault_server))


def test_a_secret_is_created_read_changed_deleted_and_restored(aws: AwsStage) -> None:
    client, name = aws.client, aws.name
    made = client.create_secret(Name=name, SecretString="s3cr3t-canary", Description="of the shop")
    assert made["ARN"].startswith(f"arn:aws:secretsmanager:{REGION}:000000000000:secret:{name}-")
    for secret_id in (name, made["ARN"], made["ARN"][:-7]):
        read = client.get_secret_value(SecretId=secret_id)
        assert (read["SecretString"], read["VersionId"]) == ("s3cr3t-canary", made["VersionId"])
    refused("ResourceExistsException", client.create_secret, Name=name, SecretString="x")
    put = client.put_secret_value(SecretId=name, SecretString='{"user": "a", "password": "b"}')
    assert put["VersionStages"] == ["AWSCURRENT"]
    assert client.get_secret_value(SecretId=name)["SecretString"] == '{"user": "a", "password": "b"}'
    old = client.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS")
    assert (old["SecretString"], old["VersionId"]) == ("s3cr3t-canary", made["VersionId"])
    assert client.get_secret_value(SecretId=name, VersionId=made["VersionId"])["SecretString"] == "s3cr3t-canary"
    shown = client.describe_secret(SecretId=name)
    assert shown["Description"] == "of the shop"
    assert not {"Tags", "RotationEnabled"} & set(shown)
    stages = {made["VersionId"]: ["AWSPREVIOUS"], put["VersionId"]: ["AWSCURRENT"]}
    assert shown["VersionIdsToStages"] == stages
    client.tag_resource(SecretId=name, Tags=[{"Key": "team", "Value": "x"}, {"Key": "y", "Value": "z"}])
    client.untag_resource(SecretId=name, TagKeys=["y"])
    assert client.describe_secret(SecretId=name)["Tags"] == [{"Key": "team", "Value": "x"}]
    listed = client.list_secrets(Filters=[{"Key": "name", "Values": [f"{aws.vault.folder}/"]}])
    assert [(one["Name"], one["SecretVersionsToStages"]) for one in listed["SecretList"]] == [(name, stages)]
    client.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    assert "marked for deletion" in refused("InvalidRequestException", client.get_secret_value, SecretId=name)
    client.restore_secret(SecretId=name)
    assert client.get_secret_value(SecretId=name)["SecretString"].startswith('{"user"')
    client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    refused("ResourceNotFoundException", client.get_secret_value, SecretId=name)
    entries = aws.vault.entries("vault.read")
    assert {one["object"] for one in entries} == {f"secret/{name}"}
    assert "s3cr3t" not in repr(aws.vault.live_server.entries(limit=300))


def test_a_secret_is_created_before_its_value(aws: AwsStage) -> None:
    """Terraform creates a secret, looks at it, and puts the value afterwards."""
    client, name = aws.client, f"{aws.vault.folder}/later"
    tags = [{"Key": "team", "Value": "x"}]
    made = client.create_secret(Name=name, Description="of the shop", Tags=tags, ClientRequestToken="t" * 32)
    assert set(made) == {"ARN", "Name", "ResponseMetadata"}
    shown = client.describe_secret(SecretId=made["ARN"])
    assert (shown["Description"], shown["Tags"], "VersionIdsToStages" in shown) == ("of the shop", tags, False)
    assert client.list_secret_version_ids(SecretId=name)["Versions"] == []
    missing = "Secrets Manager can't find the specified secret value for"
    no_value: list[tuple[str, dict[str, str]]] = [
        ("staging label: AWSCURRENT", {}),
        ("staging label: AWSPREVIOUS", {"VersionStage": "AWSPREVIOUS"}),
        (f"VersionId: {'t' * 32}", {"VersionId": "t" * 32}),
    ]
    for words, version in no_value:
        message = refused("ResourceNotFoundException", client.get_secret_value, SecretId=name, **version)
        assert message == f"{missing} {words}"
    errors = client.batch_get_secret_value(SecretIdList=[name])["Errors"]
    assert [one["ErrorCode"] for one in errors] == ["ResourceNotFoundException"]
    listed = client.list_secrets(Filters=[{"Key": "name", "Values": [name]}])["SecretList"]
    assert [one["Name"] for one in listed] == [name]
    for value in ({}, {"SecretString": "x"}):
        refused("ResourceExistsException", client.create_secret, Name=name, **value)
    client.delete_secret(SecretId=name)
    refused("InvalidRequestException", client.put_secret_value, SecretId=name, SecretString="one")
    client.restore_secret(SecretId=name)
    message = refused("InvalidRequestException", client.put_secret_value, SecretId=name)
    assert message == "You must provide either SecretString or SecretBinary."
    refused("InvalidParameterException", client.put_secret_value, SecretId=name, SecretString="x", SecretBinary=b"x")
    put = client.put_secret_value(SecretId=name, SecretString="one", ClientRequestToken="t" * 32)
    assert (put["VersionId"], put["VersionStages"]) == ("t" * 32, ["AWSCURRENT"])
    assert client.get_secret_value(SecretId=name)["SecretString"] == "one"
    assert client.describe_secret(SecretId=name)["Description"] == "of the shop"
    message = refused("ResourceNotFoundException", client.get_secret_value, SecretId=name, VersionStage="AWSPREVIOUS")
    assert message == f"{missing} staging label: AWSPREVIOUS"
    vault, other = aws.vault.login(), f"{aws.vault.folder}/metadata"
    vault.secrets.kv.v2.update_metadata(path=other, custom_metadata={"a": "b"})
    client.update_secret(SecretId=other, SecretString='{"a": "b"}', Description="of Vault")
    assert vault.secrets.kv.v2.read_secret_version(path=other, raise_on_deleted_version=True)["data"]["data"] == {
        "a": "b"
    }


def test_both_apis_read_the_same_secret(aws: AwsStage) -> None:
    vault, path = aws.vault.login(), f"{aws.vault.folder}/shared"
    vault.secrets.kv.v2.create_or_update_secret(path=path, secret={"password": "one"})
    assert json.loads(aws.client.get_secret_value(SecretId=path)["SecretString"]) == {"password": "one"}
    aws.client.put_secret_value(SecretId=path, SecretString='{"password": "two"}')
    read = vault.secrets.kv.v2.read_secret_version(path=path, raise_on_deleted_version=True)
    assert read["data"]["data"] == {"password": "two"}
    aws.client.update_secret(SecretId=path, SecretBinary=b"\x00\xff")
    assert aws.client.get_secret_value(SecretId=path)["SecretBinary"] == b"\x00\xff"
    values = aws.client.batch_get_secret_value(SecretIdList=[path, f"{aws.vault.folder}/none", "agents/other/db"])
    assert [one["Name"] for one in values["SecretValues"]] == [path]
    codes = [one["ErrorCode"] for one in values["Errors"]]
    assert codes == ["ResourceNotFoundException", "AccessDeniedException"]
    assert len(aws.client.get_random_password(PasswordLength=40, ExcludePunctuation=True)["RandomPassword"]) == 40


def test_a_token_makes_a_request_idempotent(aws: AwsStage) -> None:
    name, token = f"{aws.vault.folder}/token", "a" * 32
    aws.client.create_secret(Name=name, SecretString="one", Description=token)
    first = aws.client.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=token)
    again = aws.client.put_secret_value(
        SecretId=name, SecretString="two", ClientRequestToken=token, VersionStages=["AWSCURRENT"]
    )
    assert first["VersionId"] == again["VersionId"] == token
    refused(
        "ResourceExistsException",
        aws.client.put_secret_value,
        SecretId=name,
        SecretString="three",
        ClientRequestToken=token,
    )
    refused("InvalidParameterException", aws.client.get_secret_value, SecretId=f"{name} ")
    assert aws.client.get_secret_value(SecretId=name)["SecretString"] == "two"
    for wrong in (6, 31):
        refused("InvalidParameterException", aws.client.delete_secret, SecretId=name, RecoveryWindowInDays=wrong)
    for path in (f"{aws.vault.folder}/../x", f"{aws.vault.folder}//x", f"/{name}"):
        refused("InvalidParameterException", aws.client.get_secret_value, SecretId=path)
    message = refused(
        "InvalidParameterException", aws.client.create_secret, Name=f"{name}2", SecretString="x", KmsKeyId="k"
    )
    assert message.startswith("`KmsKeyId` is not supported")
    refused("InvalidParameterException", aws.client.batch_get_secret_value, SecretIdList=[name], MaxResults=1)
    refused("AccessDeniedException", aws.client.list_secrets)


def test_a_request_needs_a_fresh_signature_over_its_content_for_this_server(aws: AwsStage) -> None:
    key_id, secret = aws.key["access_key_id"], aws.key["secret_access_key"]
    name = f"{aws.vault.folder}/signed"
    aws.client.create_secret(Name=name, SecretString="x")
    wrong = aws.connect(key_id, secret[:-1] + ("a" if secret[-1] != "a" else "b"))
    refused("InvalidSignatureException", wrong.get_secret_value, SecretId=name)
    refused("UnrecognizedClientException", aws.connect("OSTK" + "A" * 16, secret).get_secret_value, SecretId=name)
    refused("InvalidSignatureException", aws.connect(key_id, secret, "eu-west-1").get_secret_value, SecretId=name)
    now = datetime.now(UTC)
    body = {"SecretId": name}
    for seconds, status in ((0, 200), (-280, 200), (280, 200), (-320, 400), (320, 400)):
        answer = post(aws.sign("GetSecretValue", body, at=now + timedelta(seconds=seconds)))
        assert answer.status_code == status, (seconds, answer.text)
    signed = aws.sign("GetSecretValue", body)
    assert post(signed).status_code == 200
    for changed in (
        {"x-amz-target": "secretsmanager.DescribeSecret"},
        {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
        {"x-amz-security-token": "t"},
        {"host": "other.example.org"},
    ):
        answer = post(signed, **changed)
        assert (answer.status_code, "SecretString" in answer.text) == (400, False), (changed, answer.text)
        assert answer.json()["__type"] == answer.headers["x-amzn-errortype"] == "InvalidSignatureException"
    signed.data = json.dumps({"SecretId": f"{name}2"})
    assert post(signed).json()["__type"] == "InvalidSignatureException"
    unsigned = httpx2.post(signed.url, json=body, headers={"x-amz-target": "secretsmanager.GetSecretValue"})
    assert unsigned.json()["__type"] == "MissingAuthenticationTokenException"
    write = aws.sign("TagResource", {"SecretId": name, "Tags": [{"Key": "a", "Value": "b"}]})
    assert post(write).status_code == 200
    repeated = post(write).json()
    assert (repeated["__type"], "sent before" in repeated["Message"]) == ("ThrottlingException", True)


def test_an_sdk_signs_a_repeated_change_again_until_it_is_accepted(aws: AwsStage) -> None:
    """Equal requests in one second have one signature. The SDK tries again after the error, with a new time."""
    client = boto3.client(
        "secretsmanager",
        endpoint_url=aws.key["endpoint"],
        region_name=REGION,
        aws_access_key_id=aws.key["access_key_id"],
        aws_secret_access_key=aws.key["secret_access_key"],
        config=Config(retries={"max_attempts": 10, "mode": "standard"}),
    )
    name = f"{aws.vault.folder}/repeated"
    client.create_secret(Name=name, SecretString="x")

    def tag() -> int:
        answer = client.tag_resource(SecretId=name, Tags=[{"Key": "a", "Value": "b"}])
        return int(answer["ResponseMetadata"]["RetryAttempts"])

    eventually(lambda: tag() > 0, pause_s=0)


def test_a_signature_is_read_in_each_form_that_aws_reads(aws: AwsStage) -> None:
    """Headers that are sent twice, with spaces, or with any text; and the parts of `Authorization` in any order."""
    body = {"SecretId": f"{aws.vault.folder}/forms"}
    aws.client.create_secret(Name=body["SecretId"], SecretString="x")
    for more in (
        [("x-amz-meta", "a"), ("x-amz-meta", "b")],
        [("x-amz-meta", "a \t  b")],
        [("x-amz-meta", "voilà  Å")],  # two letters whose bytes are white space in Latin-1
        [("x_meta", "a")],
        [("x-amz-meta", "")],
    ):
        signed = aws.sign("GetSecretValue", body, more=more)
        assert "meta" in signed.headers["authorization"]
        assert post(signed).json()["SecretString"] == "x", more
    signed = aws.sign("GetSecretValue", body)
    algorithm, _, rest = signed.headers["authorization"].partition(" ")
    credential, names, signature = rest.split(", ")
    for parts in ((credential, names, signature), (signature, credential, names)):
        for between in (",", ", ", " ,  "):
            assert post(signed, authorization=f"{algorithm} {between.join(parts)}").status_code == 200
    for incomplete in (
        f"{algorithm} {credential}, {names}",
        f"{algorithm} {credential}, {names}, {signature}, {signature}",
        f"{algorithm} {credential}, {names}, {signature},",
        f"{algorithm} {credential}, {names}, {signature.upper()}",
        f"{algorithm} {credential}, {names}, {signature[:-1]}",
        f"{algorithm} {credential}, SignedHeaders=, {signature}",
        f"AWS4-HMAC-SHA1 {rest}",
        f"Bearer {rest}",
        "",
    ):
        answer = post(signed, authorization=incomplete)
        assert answer.json()["__type"] == "IncompleteSignatureException", incomplete
    other_day = credential.replace(signed.headers["x-amz-date"][:8], "20200101")
    answer = post(signed, authorization=f"{algorithm} {other_day}, {names}, {signature}")
    assert "which is not the day" in answer.json()["Message"]


def test_a_response_names_its_request_id_and_an_old_signature_gets_the_server_time(aws: AwsStage) -> None:
    answer = aws.client.get_random_password()["ResponseMetadata"]
    assert answer["RequestId"] == answer["HTTPHeaders"]["x-request-id"]
    now = datetime.now(UTC)
    for seconds, words in ((-320, "Signature expired: "), (320, "Signature not yet current: ")):
        at = now + timedelta(seconds=seconds)
        refusal = post(aws.sign("GetRandomPassword", {}, at=at))
        assert refusal.json()["Message"].startswith(f"{words}{at:%Y%m%dT%H%M%SZ} is ")
        assert {"date", "x-amzn-requestid"} <= set(refusal.headers), "SDKs correct their clock by `date`"


HIDDEN = """
@id("hide") forbid (principal, action == Action::"list_secrets", resource is Secret)
when { resource.path like "agents/*/hidden/*" };
@id("restorable") forbid (principal, action == Action::"delete_secret", resource is Secret)
when { context.operation == "metadata" };
@id("lasting") forbid (principal, action == Action::"delete_secret", resource is Secret)
when { context.operation == "schedule-deletion" && resource.path like "agents/*/policies/shown/*" };
"""


def test_policies_decide_as_they_would_for_the_vault_api(aws: AwsStage) -> None:
    """A list shows no folder that the caller may not list, and a deletion without recovery is one of metadata."""
    folder, client, api = f"{aws.vault.folder}/policies", aws.client, aws.vault.live_server.api
    names = [f"{folder}/a", f"{folder}/hidden/b", f"{folder}/shown/c"]
    for name in names:
        client.create_secret(Name=name, SecretString="x")

    def listed() -> list[str]:
        pages = client.get_paginator("list_secrets").paginate(
            Filters=[{"Key": "name", "Values": [f"{folder}/"]}], PaginationConfig={"PageSize": 1}
        )
        return [one["Name"] for page in pages for one in page["SecretList"]]

    assert listed() == names
    api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + HIDDEN}})
    try:
        assert listed() == [names[0], names[2]]
        page = {"Filters": [{"Key": "name", "Values": [f"{folder}/"]}], "MaxResults": 1}
        after = client.list_secrets(**page)["NextToken"]
        hidden = client.list_secrets(**page, NextToken=after)
        assert not hidden["SecretList"]
        assert b"hidden" not in base64.urlsafe_b64decode(hidden["NextToken"] + "==")
        forged = base64.urlsafe_b64encode(names[0].encode()).decode().rstrip("=")
        for wrong in (after[:-8] + "A" * 8, after[:16], "A", "\u2028", forged):
            refused("InvalidNextTokenException", client.list_secrets, **page, NextToken=wrong)
        refused("AccessDeniedException", client.delete_secret, SecretId=names[0], ForceDeleteWithoutRecovery=True)
        refused("AccessDeniedException", client.delete_secret, SecretId=names[2])
        client.delete_secret(SecretId=names[0])
        scheduled = aws.vault.entries("vault.delete")[0]
        assert (scheduled["object"], scheduled["detail"]["operation"]) == (f"secret/{names[0]}", "schedule-deletion")
        assert scheduled["detail"]["due_at"] > scheduled["at"]
        client.restore_secret(SecretId=names[0])
    finally:
        api("POST", "/policies", {"files": {"secrets.cedar": POLICIES}})
    assert client.get_secret_value(SecretId=names[0])["SecretString"] == "x"


def test_the_vault_api_cannot_set_the_reserved_attributes_of_the_aws_api(aws: AwsStage) -> None:
    """A deletion in the past would let the next CreateSecret delete the secret without the right to delete it."""
    name, vault = f"{aws.vault.folder}/odd", aws.vault.login()
    made = aws.client.create_secret(Name=name, SecretString="x", ClientRequestToken="t" * 32)
    kept = {"aws:version:1": "t" * 32}
    for key in ("aws:deletion", "aws:version:1", "aws:version:2", "aws:version:", "aws:other"):
        with pytest.raises(hvac.exceptions.InvalidRequest, match="only the API of AWS sets"):
            vault.secrets.kv.v2.update_metadata(path=name, custom_metadata={**kept, key: "1"})
    refused("ResourceExistsException", aws.client.create_secret, Name=name, SecretString="z")
    vault.secrets.kv.v2.update_metadata(path=name, custom_metadata={**kept, "aws:description": "d", "aws:tag:a": "b"})
    shown = aws.client.describe_secret(SecretId=name)
    assert (shown["Description"], shown["Tags"]) == ("d", [{"Key": "a", "Value": "b"}])
    assert [*shown["VersionIdsToStages"]] == [made["VersionId"]]
    aws.client.put_secret_value(SecretId=name, SecretString="y", ClientRequestToken="u" * 32)
    vault.secrets.kv.v2.update_metadata(path=name, max_versions=100)
    for number in range(70):
        made = aws.client.put_secret_value(SecretId=name, SecretString=str(number))
    assert aws.client.get_secret_value(SecretId=name, VersionId=made["VersionId"])["SecretString"] == "69"


def test_custom_metadata_of_the_vault_api_keeps_a_scheduled_deletion_and_version_ids(aws: AwsStage) -> None:
    name, vault = f"{aws.vault.folder}/replaced", aws.vault.login()
    made = aws.client.create_secret(Name=name, SecretString="x", ClientRequestToken="t" * 32)
    at = aws.client.delete_secret(SecretId=name)["DeletionDate"]
    for metadata in ({"owner": "ann"}, {}):
        vault.secrets.kv.v2.update_metadata(path=name, custom_metadata=metadata)
    body = {"custom_metadata": {"aws:deletion": None, "owner": "bob"}}
    merge = {"content-type": "application/merge-patch+json"}
    vault.adapter.request("patch", f"/v1/secret/metadata/{name}", json=body, headers=merge)
    shown = aws.client.describe_secret(SecretId=name)
    assert (shown["DeletedDate"], [*shown["VersionIdsToStages"]]) == (at, [made["VersionId"]])
    aws.client.restore_secret(SecretId=name)
    assert aws.client.get_secret_value(SecretId=name)["VersionId"] == "t" * 32
    assert vault.secrets.kv.v2.read_secret_metadata(path=name)["data"]["custom_metadata"]["owner"] == "bob"


def test_an_unsigned_batch_request_is_refused(aws: AwsStage) -> None:
    url = f"{aws.key['endpoint']}/"
    for ids in (["!"], ["arn:aws:secretsmanager:eu-west-1:000000000000:secret:x"]):
        answer = httpx2.post(
            url, json={"SecretIdList": ids}, headers={"x-amz-target": "secretsmanager.BatchGetSecretValue"}
        )
        assert (answer.status_code, answer.json()["__type"]) == (400, "MissingAuthenticationTokenException")
    values = aws.client.batch_get_secret_value(SecretIdList=["!"])
    assert [one["ErrorCode"] for one in values["Errors"]] == ["InvalidParameterException"]


def test_a_password_has_each_type_of_character_with_few_random_bytes() -> None:
    drawn = bytearray()

    def random(count: int) -> bytes:
        drawn.extend(bytes(count))
        return ambient.random(count)

    excluded = "bcdefghijklmnopqrstuvwxyzBCDEFGHIJKLMNOPQRSTUVWXYZ123456789"
    options = PasswordOptions(PasswordLength=5, ExcludeCharacters=excluded)
    passwords = [make_password(options, random=random) for _ in range(100)]
    assert all({"a", "A", "0"} < set(one) and len(one) == 5 for one in passwords)
    assert len({one.index("a") for one in passwords}) == 5
    assert len(drawn) < 100 * 30
    for length in (1, 4096):
        options = PasswordOptions(PasswordLength=length, RequireEachIncludedType=False, IncludeSpace=True)
        assert len(make_password(options, random=random)) == length
    for wrong in (3, 4097, 0, -1):
        with pytest.raises(Invalid):
            make_password(PasswordOptions(PasswordLength=wrong), random=random)


def test_the_examples_of_the_documentation_page_run_in_their_order(vault_server: ServerFixture) -> None:
    stage = AwsStage(VaultStage(vault_server))
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "secrets.md").read_text("utf-8")
    [(example, rotation)] = re.findall(
        r"```python\n(import boto3\n.*?)```.*?```python\n(new = .*?)```", page, re.DOTALL
    )
    for placeholder, value in (
        ("https://ostiary.example.com/aws", stage.key["endpoint"]),
        ("OSTK...", stage.key["access_key_id"]),
        ('secret_access_key="..."', f'secret_access_key="{stage.key["secret_access_key"]}"'),
        ("agents/writer/", f"{stage.vault.folder}/"),
    ):
        assert placeholder in example
        example = example.replace(placeholder, value)
    names: dict[str, Any] = {"name": stage.name, "value": "rotated"}
    exec(example, names)
    assert stage.client.get_secret_value(SecretId=stage.name)["SecretString"] == '{"password": "... (new)"}'
    exec(rotation, names)
    assert stage.client.get_secret_value(SecretId=stage.name)["SecretString"] == "rotated"


def test_an_access_key_is_refused_after_revocation_or_suspension_and_from_other_networks(
    vault_server: ServerFixture,
) -> None:
    stage = AwsStage(VaultStage(vault_server))
    ostiary = vault_server.server.ostiary
    away = AwsStage(stage.vault, "192.0.2.0/24")
    stage.client.create_secret(Name=stage.name, SecretString="x")
    refused("UnrecognizedClientException", away.client.get_secret_value, SecretId=stage.name)
    with pytest.raises(AssertionError, match="2 access keys"):
        AwsStage(stage.vault)
    with pytest.raises(AssertionError, match="access key not found"):
        ostiary("aws-key", "revoke", VaultStage(vault_server).name, away.key["access_key_id"])
    ostiary("aws-key", "revoke", stage.vault.name, away.key["access_key_id"])
    other = AwsStage(stage.vault)
    ostiary("agent", "forbid-bearer", stage.vault.name, "--resource", "ostiary")
    refused("UnrecognizedClientException", stage.client.get_secret_value, SecretId=stage.name)
    ostiary("agent", "allow-bearer", stage.vault.name, "--resource", "ostiary")
    assert stage.client.get_secret_value(SecretId=stage.name)["SecretString"] == "x"
    ostiary("aws-key", "revoke", stage.vault.name, stage.key["access_key_id"])
    refused("UnrecognizedClientException", stage.client.get_secret_value, SecretId=stage.name)
    assert other.client.get_secret_value(SecretId=stage.name)["SecretString"] == "x"
    ostiary("agent", "suspend", stage.vault.name)
    refused("UnrecognizedClientException", other.client.get_secret_value, SecretId=stage.name)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": "\\ud800"}',
        '{"a": 1e400}',
        '{"a": 1.5e+300}',
        '{"a": 1, "a": 2}',
        '{"SecretString": "x"}',
        '{"SecretBinary": "eA==", "b": 1}',
        '{"a":1}',
        '{"a": "é"}',
        f'{{"a": {"9" * 5000}}}',
        f'{{"a": {"9" * 50}}}',
        '{"a": ' * 2000 + "1" + "}" * 2000,
        '{"a": [1, -0.0, null, true, {"b": "\\u00e9"}]}',
        "[1]",
        "{}",
        "",
    ],
)
def test_a_text_comes_back_as_it_was_stored(text: str) -> None:
    stored = msgspec.json.encode(read_value(text, None))
    assert render_value(stored) == {"SecretString": text}


REFUSED = (
    "AssociateCrossAccountReplica",
    "DisassociateCrossAccountReplica",
    "PutResourcePolicy",
    "RemoveRegionsFromReplication",
    "ReplicateSecretToRegions",
    "StopReplicationToReplica",
    "ValidateResourcePolicy",
)


def test_each_aws_action_is_supported_or_documented_as_unsupported(aws: AwsStage) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/conformance.md").read_text()
    name = f"{aws.name}-policy"
    aws.client.create_secret(Name=name, SecretString="x")
    assert set(aws.client.meta.service_model.operation_names) == wire_aws.NAMES
    for action in REFUSED:
        assert f"| {action}" in page or f", {action}" in page, action
        body = {"SecretId": name, "ResourcePolicy": "{}", "AddReplicaRegions": [{"Region": "eu-west-1"}]}
        answer = post(aws.sign(action, body))
        assert (answer.status_code, answer.json()["__type"]) == (400, "InvalidRequestException"), action
        entry = aws.vault.entries("vault.write")[0]
        assert (entry["outcome"], entry["object"]) == ("refused", f"secret/{name}")
        answer = post(aws.sign(action, {**body, "SecretId": f"{name}-none"}))
        assert answer.json()["__type"] == "ResourceNotFoundException", action
        answer = post(aws.sign(action, {**body, "SecretId": "agents/other/db"}))
        assert answer.json()["__type"] == "AccessDeniedException", action
    without = post(aws.sign("ValidateResourcePolicy", {"ResourcePolicy": "{}"})).json()
    assert (without["__type"], "Cedar policy" in without["Message"]) == ("InvalidRequestException", True)
    assert post(aws.sign("MakeSecret", {})).json()["__type"] == "UnknownOperationException"
    aws.client.delete_resource_policy(SecretId=name)
    assert "ResourcePolicy" not in aws.client.get_resource_policy(SecretId=name)
    assert aws.client.list_resource_policies(SecretId=name)["ResourcePolicies"] == []
    refused("ResourceNotFoundException", aws.client.get_resource_policy, SecretId=f"{name}-none")


def test_an_action_accepts_the_members_of_the_aws_model_and_refuses_others(aws: AwsStage) -> None:
    model = aws.client.meta.service_model
    for action, members in wire_aws._MEMBERS.items():
        known = set(model.operation_model(action).input_shape.members)
        assert members <= known, action
        for member in {"VersionStages", "Filters", "MaxResults", "Tags", "Unknown"} - members:
            answer = post(aws.sign(action, {"SecretId": aws.name, member: []}))
            kind = answer.json()["__type"]
            assert (answer.status_code, kind) == (400, "InvalidParameterException"), (action, member)


def test_secrets_are_found_by_name_description_and_tags(aws: AwsStage) -> None:
    folder, client = f"{aws.vault.folder}/found", aws.client
    for name, description, tag in (("ab", "Key of the Shop", "red"), ("ac", "shop", "blue"), ("b", "", "Red")):
        client.create_secret(
            Name=f"{folder}/{name}", SecretString=name, Description=description, Tags=[{"Key": "color", "Value": tag}]
        )
    by_name = {"Key": "name", "Values": [f"{folder}/"]}
    cases: list[tuple[list[dict[str, Any]], list[str]]] = [
        ([], ["ab", "ac", "b"]),
        ([{"Key": "name", "Values": [f"{folder}/ac", f"{folder}/b"]}], ["ac", "b"]),
        ([{"Key": "name", "Values": [f"{folder}/a", f"{folder}/B"]}], ["ab", "ac"]),
        ([{"Key": "description", "Values": ["shop"]}], ["ab", "ac"]),
        ([{"Key": "description", "Values": ["sh ke"]}], ["ab"]),
        ([{"Key": "description", "Values": ["hop"]}], []),
        ([{"Key": "description", "Values": ["!shop"]}], ["b"]),
        ([{"Key": "tag-value", "Values": ["r", "bl"]}], ["ab", "ac"]),
        ([{"Key": "all", "Values": ["SHOP"]}], ["ab", "ac"]),
        ([{"Key": "all", "Values": ["ed", "colo"]}], ["ab", "ac", "b"]),
        ([{"Key": "all", "Values": ["bl", "key sho"]}], ["ab", "ac"]),
        ([{"Key": "all", "Values": ["blue shop", "+"]}], []),
        ([{"Key": "description", "Values": ["KeyOf"]}], ["ab"]),
        ([{"Key": "tag-key", "Values": ["color"]}, {"Key": "tag-value", "Values": ["Red"]}], ["b"]),
        ([{"Key": "primary-region", "Values": ["us-"]}], ["ab", "ac", "b"]),
        ([{"Key": "primary-region", "Values": ["US-", "eu-"]}], []),
        ([{"Key": "owning-service", "Values": ["rds"]}], []),
        ([{"Key": "owning-service", "Values": ["!rds"]}], ["ab", "ac", "b"]),
    ]
    for filters, names in cases:
        wanted = [f"{folder}/{name}" for name in names]
        listed = client.list_secrets(Filters=[by_name, *filters])["SecretList"]
        assert [one["Name"] for one in listed] == wanted, filters
        values = client.batch_get_secret_value(Filters=[by_name, *filters])
        assert ([one["SecretString"] for one in values["SecretValues"]], values["Errors"]) == (names, []), filters
    assert len(client.batch_get_secret_value(Filters=[by_name], MaxResults=20)["SecretValues"]) == 3
    refused("InvalidParameterException", aws.unchecked.batch_get_secret_value, Filters=[by_name], MaxResults=21)
    first = client.batch_get_secret_value(Filters=[by_name], MaxResults=2)
    rest = client.batch_get_secret_value(Filters=[by_name], MaxResults=2, NextToken=first["NextToken"])
    assert [one["SecretString"] for one in (*first["SecretValues"], *rest["SecretValues"])] == ["ab", "ac", "b"]
    wrong: list[dict[str, Any]] = [
        {"Key": "owner", "Values": ["x"]},
        {"Key": "all", "Values": ["x/" * 17]},
        {"Key": "name", "Values": [f"{folder}/../x"]},
        {"Key": "description", "Values": ["x " * 17]},
        {"Key": "description", "Values": ["x"] * 11},
        {"Key": "description", "Values": ["x" * 513]},
        {"Key": "description", "Values": ["x " * 16] * 6 + ["x " * 5]},
    ]
    for one in wrong:
        filters = [by_name, one] if one["Key"] != "name" else [one]
        refused("InvalidParameterException", client.list_secrets, Filters=filters)
    client.list_secrets(Filters=[by_name, {"Key": "description", "Values": ["x " * 16] * 6 + ["x " * 4]}])
    many_words = f"{folder}/{'x/' * 17}x"  # a name is no search for words
    assert client.list_secrets(Filters=[{"Key": "name", "Values": [many_words] * 10}])["SecretList"] == []
    refused("AccessDeniedException", client.list_secrets, Filters=[{"Key": "name", "Values": ["!x"]}])
    refused("AccessDeniedException", client.list_secrets, Filters=[{"Key": "name", "Values": [f"{folder}/a", "x"]}])


def test_a_member_that_is_too_long_is_named_with_its_limit(aws: AwsStage) -> None:
    name, client = f"{aws.vault.folder}/limits", aws.client
    client.create_secret(
        Name=name, SecretString="x", Description="d" * 2048, Tags=[{"Key": "k" * 128, "Value": "v" * 256}]
    )
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("$.Description", {"Description": "canary" * 342}),
        ("$.Tags[0].Key", {"Tags": [{"Key": "canary" * 22, "Value": "v"}]}),
        ("$.Tags[0].Value", {"Tags": [{"Key": "k", "Value": "canary" * 43}]}),
        ("$.Tags", {"Tags": [{"Key": f"canary{number}", "Value": "v"} for number in range(51)]}),
    ]
    for member, value in wrong:
        message = refused("InvalidParameterException", client.create_secret, Name=f"{name}2", **value)
        assert f"`{member}`" in message
        assert re.search(r"length <= \d+", message), message
        assert "canary" not in message
    refused("ResourceNotFoundException", client.describe_secret, SecretId=f"{name}2")


def test_a_filter_without_a_valid_key_or_values_is_refused(aws: AwsStage) -> None:
    for one, words in (
        ({"Values": ["x"]}, "Invalid filter key"),
        ({"Key": "invalid", "Values": ["x"]}, "Invalid filter key: 'invalid' is not one of all description name "),
        ({"Key": "description"}, "Invalid filter values for key: description"),
        ({"Key": "description", "Values": []}, "Invalid filter values for key: description"),
    ):
        message = refused("InvalidParameterException", aws.unchecked.list_secrets, Filters=[one])
        assert message.startswith(words)


def test_a_list_of_secrets_can_be_sorted_by_date_or_name_in_both_directions(aws: AwsStage) -> None:
    folder, client = f"{aws.vault.folder}/order", aws.client
    names = [f"{folder}/{name}" for name in ("b", "c/x", "a", "c-", "d")]
    for name in names:
        client.create_secret(Name=name, SecretString="x")
    client.put_secret_value(SecretId=names[0], SecretString="changed")  # the order is not that of changes

    def listed(**order: str) -> list[str]:
        pages = client.get_paginator("list_secrets").paginate(
            Filters=[{"Key": "name", "Values": [f"{folder}/"]}], PaginationConfig={"PageSize": 2}, **order
        )
        found = [[one["Name"] for one in page["SecretList"]] for page in pages]
        assert all(len(page) <= 2 for page in found)
        return [name for page in found for name in page]

    assert listed() == listed(SortOrder="asc") == listed(SortBy="created-date") == names
    assert listed(SortOrder="desc") == names[::-1]
    assert listed(SortBy="name") == sorted(names)
    assert listed(SortBy="name", SortOrder="desc") == sorted(names, reverse=True)
    page = {"Filters": [{"Key": "name", "Values": [f"{folder}/"]}], "MaxResults": 2}
    token = client.list_secrets(**page)["NextToken"]
    refused("InvalidNextTokenException", client.list_secrets, **page, NextToken=token, SortOrder="desc")
    refused("InvalidNextTokenException", client.list_secrets, **page, NextToken=token, SortBy="name")
    for order in ({"SortOrder": "up"}, {"SortBy": "size"}):
        refused("InvalidParameterException", aws.unchecked.list_secrets, **page, **order)
    changed = [*names[1:], names[0]]
    assert listed(SortBy="last-changed-date") == changed
    assert listed(SortBy="last-changed-date", SortOrder="desc") == changed[::-1]
    for name in (names[4], names[2]):
        client.get_secret_value(SecretId=name)
    read = [*sorted({*names} - {names[2], names[4]}), names[4], names[2]]
    assert listed(SortBy="last-accessed-date") == read
    assert listed(SortBy="last-accessed-date", SortOrder="desc") == read[::-1]


async def test_only_a_limited_number_of_secrets_can_be_sorted_by_a_changing_date(
    world: World, bot: VaultAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        assert await bot.status("POST", f"secret/data/agents/bot/{name}", {"data": {}}) == 200

    def page(column: str) -> list[str]:
        pages, reader = secret_pages.page_by_time, world.db.read()
        return pages(reader, "secret", "agents/bot/", column=column, after=None, limit=9, is_descending=False).paths

    monkeypatch.setattr(secret_pages, "MAX_SORTED", 3)
    assert page("updated_at") == ["agents/bot/a", "agents/bot/b", "agents/bot/c"]
    monkeypatch.setattr(secret_pages, "MAX_SORTED", 2)
    with pytest.raises(Invalid, match="cannot be sorted by this date"):
        page("read_at")
    assert len(page("created_at")) == 3


def test_a_secret_has_at_most_fifty_tags_each_with_a_key_of_its_own(aws: AwsStage) -> None:
    name, client = f"{aws.vault.folder}/tagged", aws.unchecked
    tags = [{"Key": f"é{number}{'k' * 120}", "Value": "v" * 256} for number in range(50)]
    client.create_secret(Name=name, SecretString="x", Description="two\nlines", Tags=tags)
    for number in range(25):
        client.put_secret_value(SecretId=name, SecretString=str(number))
    shown = client.describe_secret(SecretId=name)
    assert (shown["Tags"], shown["Description"]) == (tags, "two\nlines")
    wrong: list[list[dict[str, str]]] = [
        [{"Key": "one more", "Value": ""}],
        [{"Key": tags[0]["Key"], "Value": "a"}, {"Key": tags[0]["Key"], "Value": "b"}],
        [{"Key": "aws:x", "Value": "a"}],
        [{"Key": "AWS:x", "Value": "a"}],
        [{"Key": "", "Value": "a"}],
        [{"Key": tags[0]["Key"], "Value": "a\0b"}],
    ]
    for changed in wrong:
        refused("InvalidParameterException", client.tag_resource, SecretId=name, Tags=changed)
    client.tag_resource(SecretId=name, Tags=[{"Key": tags[0]["Key"], "Value": "new"}])
    assert client.describe_secret(SecretId=name)["Tags"][0]["Value"] == "new"
    client.untag_resource(SecretId=name, TagKeys=[tags[0]["Key"], "unknown"])
    client.tag_resource(SecretId=name, Tags=[{"Key": "awsome", "Value": "new"}])
    assert len(client.describe_secret(SecretId=name)["Tags"]) == 50


def test_a_kms_key_other_than_the_default_is_refused(aws: AwsStage) -> None:
    name, client = f"{aws.vault.folder}/key", aws.client
    client.create_secret(Name=name, SecretString="x", KmsKeyId="alias/aws/secretsmanager")
    assert "KmsKeyId" not in client.describe_secret(SecretId=name)
    for key in ("alias/mine", f"arn:aws:kms:us-east-1:{'1' * 12}:key/x"):
        refused("InvalidParameterException", client.create_secret, Name=f"{name}2", SecretString="x", KmsKeyId=key)
        refused("InvalidParameterException", client.update_secret, SecretId=name, SecretString="y", KmsKeyId=key)
    refused("ResourceNotFoundException", client.describe_secret, SecretId=f"{name}2")
    assert client.get_secret_value(SecretId=name)["SecretString"] == "x"


def test_a_name_can_be_reused_only_after_its_secret_is_deleted_without_recovery(aws: AwsStage) -> None:
    name, client = f"{aws.vault.folder}/named-ABCDEF", aws.client
    arn = client.create_secret(Name=name, SecretString="x")["ARN"]
    for secret_id in (name, arn, arn[:-7]):
        assert client.get_secret_value(SecretId=secret_id)["Name"] == name
    refused("ResourceNotFoundException", client.get_secret_value, SecretId=arn[:-14])
    for wrong in (f"{arn[:-7]}2", f"{name}!", "n" * 257):
        refused("InvalidParameterException", client.create_secret, Name=wrong, SecretString="x")
    for other in (arn.replace("us-east-1", "us-east-2"), arn.replace("0" * 12, "1" * 12)):
        refused("InvalidParameterException", client.get_secret_value, SecretId=other)
    client.delete_secret(SecretId=name)
    message = refused("InvalidRequestException", client.create_secret, Name=name, SecretString="y")
    assert "already scheduled for deletion" in message
    client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    client.create_secret(Name=name, SecretString="z")
    assert client.get_secret_value(SecretId=arn)["SecretString"] == "z"


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_an_arn_has_the_partition_of_its_region(region: str, partition: str) -> None:
    scope = ArnScope(region, "1" * 12)
    arn = scope.make_arn("app/db")
    assert arn.startswith(f"arn:{partition}:secretsmanager:{region}:{'1' * 12}:secret:app/db-")
    assert scope.read_id(arn) == scope.read_id(arn[:-7]) == "app/db"
    for wrong in ("aws", "aws-cn", "aws-us-gov", "aws-iso"):
        if wrong != partition:
            with pytest.raises(Invalid, match="region or account"):
                scope.read_id(arn.replace(f"arn:{partition}:", f"arn:{wrong}:"))


def test_a_random_password_has_the_options_of_the_request(aws: AwsStage) -> None:
    def draw(**options: Any) -> str:
        return str(aws.unchecked.get_random_password(**options)["RandomPassword"])

    types = [f"Exclude{name}" for name in ("Lowercase", "Uppercase", "Numbers", "Punctuation")]
    assert len(draw()) == 32
    assert draw(**dict.fromkeys(types[1:], True)).islower()
    assert draw(**dict.fromkeys(types[:2] + types[3:], True)).isdecimal()
    assert draw(**dict.fromkeys(types, True), IncludeSpace=True, PasswordLength=3) == "   "
    assert len(draw(PasswordLength=4, IncludeSpace=True)) == 4
    assert len(draw(PasswordLength=4096, ExcludeCharacters="x" * 4096)) == 4096
    wrong: list[dict[str, Any]] = [
        {"PasswordLength": 3},
        {"PasswordLength": 4097},
        {"PasswordLength": "8"},
        {"ExcludeCharacters": "x" * 4097},
        {"ExcludeNumbers": "yes"},
        {"Length": 8},
        dict.fromkeys(types, True),
    ]
    for options in wrong:
        answer = post(aws.sign("GetRandomPassword", options))
        assert answer.json()["__type"] == "InvalidParameterException", options


def test_a_list_request_has_minimum_and_maximum_limits(aws: AwsStage) -> None:
    folder, client = f"{aws.vault.folder}/few", aws.unchecked
    client.create_secret(Name=f"{folder}/a", SecretString="x")
    by_name = {"Key": "name", "Values": [f"{folder}/"]}
    limits: list[tuple[Callable[..., Any], str, list[Any], list[Any]]] = [
        (client.list_secrets, "MaxResults", [1, 100], [0, 101]),
        (client.batch_get_secret_value, "MaxResults", [1, 20], [0, 21]),
        (client.list_secrets, "Filters", [[by_name] * 10], [[by_name] * 11]),
        (
            client.list_secrets,
            "Filters",
            [[by_name, {"Key": "tag-key", "Values": ["x" * 512]}]],
            [[by_name, {"Key": "tag-key", "Values": ["x" * 513]}]],
        ),
    ]
    for use, member, accepted, wrong in limits:
        for value in accepted:
            use(**{"Filters": [by_name], member: value})
        for value in wrong:
            refused("InvalidParameterException", use, **{"Filters": [by_name], member: value})
    name = f"{folder}/a"
    for value in (1, 100):
        assert len(client.list_secret_version_ids(SecretId=name, MaxResults=value)["Versions"]) == 1
    for value in (0, 101):
        refused("InvalidParameterException", client.list_secret_version_ids, SecretId=name, MaxResults=value)
    assert len(client.batch_get_secret_value(SecretIdList=[name] * 20)["SecretValues"]) == 20
    for ids in ([], [name] * 21):
        refused("InvalidParameterException", client.batch_get_secret_value, SecretIdList=ids)
    for days in (7, 30):
        client.delete_secret(SecretId=name, RecoveryWindowInDays=days)
        client.restore_secret(SecretId=name)


def stages_of(aws: AwsStage, name: str) -> dict[str, list[str]]:
    """The sorted staging labels of each version of a secret, by the first letter of the id of the version."""
    shown = aws.client.describe_secret(SecretId=name).get("VersionIdsToStages", {})
    return {version[0]: sorted(labels) for version, labels in shown.items()}


def put(aws: AwsStage, name: str, letter: str, *labels: str) -> None:
    """Put a value, the letter, whose version has the letter 32 times as its id."""
    more: dict[str, Any] = {"VersionStages": list(labels)} if labels else {}
    aws.client.put_secret_value(SecretId=name, SecretString=letter, ClientRequestToken=letter * 32, **more)


def move(aws: AwsStage, name: str, label: str, *, source: str = "", target: str = "") -> None:
    ids = {"RemoveFromVersionId": source * 32, "MoveToVersionId": target * 32}
    aws.client.update_secret_version_stage(
        SecretId=name, VersionStage=label, **{key: value for key, value in ids.items() if value}
    )


def test_a_rotation_stages_a_value_and_makes_it_current_later(aws: AwsStage) -> None:
    """The steps of a rotation by an AWS function: a pending value, a test of it, and the move of AWSCURRENT. A Vault
    client reads the value that is current.
    """
    name, client, vault = f"{aws.vault.folder}/staged", aws.client, aws.vault.login()

    def read_by_vault() -> Any:
        return vault.secrets.kv.v2.read_secret_version(path=name, raise_on_deleted_version=True)["data"]["data"]

    client.create_secret(Name=name)
    put(aws, name, "a", "AWSPENDING")
    assert stages_of(aws, name) == {"a": ["AWSCURRENT", "AWSPENDING"]}  # the first version is current
    put(aws, name, "b", "AWSPENDING", "blue")
    assert stages_of(aws, name) == {"a": ["AWSCURRENT"], "b": ["AWSPENDING", "blue"]}
    assert client.get_secret_value(SecretId=name)["SecretString"] == "a"
    assert read_by_vault() == {"SecretString": "a"}
    pending = client.get_secret_value(SecretId=name, VersionStage="AWSPENDING")
    assert (pending["SecretString"], sorted(pending["VersionStages"])) == ("b", ["AWSPENDING", "blue"])
    refused("ResourceNotFoundException", client.get_secret_value, SecretId=name, VersionStage="AWSPREVIOUS")
    move(aws, name, "AWSCURRENT", source="a", target="b")
    move(aws, name, "AWSPENDING", source="b")
    assert stages_of(aws, name) == {"a": ["AWSPREVIOUS"], "b": ["AWSCURRENT", "blue"]}
    assert read_by_vault() == {"SecretString": "b"}
    move(aws, name, "AWSCURRENT", source="b", target="a")  # back to the value before
    assert stages_of(aws, name) == {"a": ["AWSCURRENT"], "b": ["AWSPREVIOUS", "blue"]}
    assert vault.secrets.kv.v2.read_secret_metadata(path=name)["data"]["current_version"] == 1
    written = vault.secrets.kv.v2.create_or_update_secret(path=name, secret={"SecretString": "v"}, cas=1)
    assert written["data"]["version"] == 3
    assert list(stages_of(aws, name).values()) == [["AWSPREVIOUS"], ["blue"], ["AWSCURRENT"]]
    put(aws, name, "c")
    assert stages_of(aws, name)["c"] == ["AWSCURRENT"]
    assert client.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS")["SecretString"] == "v"
    listed = client.list_secrets(Filters=[{"Key": "name", "Values": [name]}])["SecretList"][0]
    assert listed["SecretVersionsToStages"] == client.describe_secret(SecretId=name)["VersionIdsToStages"]
    entry = aws.vault.entries("vault.write")[0]
    assert entry["detail"]["operation"] == "write"
    move(aws, name, "blue", source="b", target="a")
    entry = aws.vault.entries("vault.write")[0]
    assert (entry["detail"]["operation"], entry["detail"]["stage"], entry["detail"]["version"]) == ("stage", "blue", 1)


def test_an_invalid_move_of_a_staging_label_changes_nothing(aws: AwsStage) -> None:
    name = f"{aws.vault.folder}/unmoved"
    aws.client.create_secret(Name=name)
    for letter in "abc":
        put(aws, name, letter)
    before = {"b": ["AWSPREVIOUS"], "c": ["AWSCURRENT"]}
    assert stages_of(aws, name) == before
    wrong: list[tuple[str, str, dict[str, str]]] = [
        ("InvalidParameterException", "AWSCURRENT", {"target": "a"}),
        ("InvalidParameterException", "AWSCURRENT", {"source": "b", "target": "a"}),
        ("InvalidParameterException", "AWSCURRENT", {"source": "c"}),
        ("InvalidParameterException", "AWSPREVIOUS", {"source": "a"}),
        ("InvalidParameterException", "blue", {"source": "a"}),
        ("InvalidParameterException", "blue", {"source": "a", "target": "b"}),
        ("InvalidParameterException", "blue", {}),
        ("ResourceNotFoundException", "blue", {"target": "x"}),
        ("ResourceNotFoundException", "AWSCURRENT", {"source": "x", "target": "a"}),
    ]
    for kind, label, ids in wrong:
        refused(kind, move, aws=aws, name=name, label=label, **ids)
    message = refused("InvalidParameterException", move, aws=aws, name=name, label="AWSCURRENT", target="b")
    assert message == (
        "The parameter RemoveFromVersionId can't be empty. Staging label AWSCURRENT is currently attached to version "
        f"{'c' * 32}, so you must explicitly reference that version in RemoveFromVersionId."
    )
    refused("ResourceNotFoundException", move, aws=aws, name=f"{name}2", label="blue", target="a")
    aws.vault.login().secrets.kv.v2.destroy_secret_versions(path=name, versions=[1])
    refused("ResourceNotFoundException", move, aws=aws, name=name, label="AWSCURRENT", source="c", target="a")
    assert stages_of(aws, name) == before
    move(aws, name, "AWSCURRENT", target="c")  # the version has the label already
    move(aws, name, "AWSPREVIOUS", source="b")
    assert stages_of(aws, name) == {"c": ["AWSCURRENT"]}
    aws.client.delete_secret(SecretId=name)
    refused("InvalidRequestException", move, aws=aws, name=name, label="blue", target="c")


def test_a_secret_has_at_most_twenty_labels_of_256_characters(aws: AwsStage) -> None:
    name = f"{aws.vault.folder}/labelled"
    aws.client.create_secret(Name=name, SecretString="a", ClientRequestToken="a" * 32)
    put(aws, name, "b", *(f"{number}{'x' * 254}" for number in range(10, 28)))
    assert sum(len(labels) for labels in stages_of(aws, name).values()) == 19
    move(aws, name, "twentieth", target="a")
    before = stages_of(aws, name)
    refused("LimitExceededException", move, aws=aws, name=name, label="one more", target="a")
    refused("LimitExceededException", put, aws=aws, name=name, letter="c")  # AWSPREVIOUS would be one more
    for label in ("x" * 257, ""):
        answer = post(aws.sign("UpdateSecretVersionStage", {"SecretId": name, "VersionStage": label}))
        assert answer.json()["__type"] == "InvalidParameterException", label
    assert stages_of(aws, name) == before
    move(aws, name, "twentieth", source="a")
    put(aws, name, "d")
    assert stages_of(aws, name)["d"] == ["AWSCURRENT"]


def test_a_version_with_a_staging_label_is_kept_beyond_the_version_limit(aws: AwsStage) -> None:
    """A version that is pending, or that a label names, stays; without a label it goes at the next write."""
    name, client = f"{aws.vault.folder}/kept", aws.client

    def versions() -> list[str]:
        more: dict[str, str] = {}
        found: list[str] = []
        while True:
            page = client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True, MaxResults=2, **more)
            assert 0 < len(page["Versions"]) <= 2
            found += [one["VersionId"][0] for one in page["Versions"]]
            if "NextToken" not in page:
                return found
            more = {"NextToken": page["NextToken"]}

    client.create_secret(Name=name, SecretString="a", ClientRequestToken="a" * 32)
    aws.vault.login().secrets.kv.v2.update_metadata(path=name, max_versions=2)
    for letter in "bcde":
        put(aws, name, letter, "AWSPENDING")
    assert versions() == ["a", "d", "e"]
    assert client.get_secret_value(SecretId=name)["SecretString"] == "a"
    assert stages_of(aws, name) == {"a": ["AWSCURRENT"], "e": ["AWSPENDING"]}
    move(aws, name, "gold", target="a")
    for letter in "fgh":
        put(aws, name, letter)
    assert versions() == ["a", "e", "g", "h"]
    assert stages_of(aws, name) == {"a": ["gold"], "e": ["AWSPENDING"], "g": ["AWSPREVIOUS"], "h": ["AWSCURRENT"]}
    again = client.put_secret_value(SecretId=name, SecretString="a", ClientRequestToken="a" * 32)
    assert again["VersionStages"] == ["gold"]
    move(aws, name, "gold", source="a")
    move(aws, name, "AWSPENDING", source="e")
    put(aws, name, "i")
    assert versions() == ["h", "i"]
    shown = client.list_secret_version_ids(SecretId=name, MaxResults=1)
    assert [one["VersionId"][0] for one in shown["Versions"]] == ["h"]
    client.create_secret(Name=f"{name}2", SecretString="x")
    for secret_id, token in ((name, "A"), (f"{name}2", shown["NextToken"])):
        refused("InvalidNextTokenException", client.list_secret_version_ids, SecretId=secret_id, NextToken=token)


def test_members_that_exclude_or_need_each_other_are_refused_and_change_nothing(aws: AwsStage) -> None:
    client, name = aws.unchecked, f"{aws.vault.folder}/pairs"
    made = client.create_secret(Name=name, SecretString="one")
    current = {"VersionStage": "AWSCURRENT", "RemoveFromVersionId": made["VersionId"]}
    both = {"AutomaticallyAfterDays": 1, "ScheduleExpression": "rate(1 days)"}
    secret, window = {"SecretId": name}, {"RecoveryWindowInDays": 7}
    before = client.describe_secret(**secret)
    by_name = [{"Key": "name", "Values": [name]}]
    one_of = "You must specify AutomaticallyAfterDays or ScheduleExpression in RotationRules, but not both."
    either = "Either 'SecretIdList' or 'Filters' must be provided, but not both."
    for use, arguments, words in (
        (client.batch_get_secret_value, {}, either),
        (client.batch_get_secret_value, {"SecretIdList": [name], "Filters": by_name}, either),
        (client.batch_get_secret_value, {"SecretIdList": [name], "MaxResults": 1}, "'Filters' not specified."),
        (
            client.delete_secret,
            secret | {"ForceDeleteWithoutRecovery": True, "RecoveryWindowInDays": 7},
            "in conjunction",
        ),
        (client.update_secret_version_stage, secret, "`VersionStage` is missing"),
        (client.update_secret_version_stage, secret | {"VersionStage": "mine"}, "`RemoveFromVersionId` are missing"),
        (client.update_secret_version_stage, secret | current, "It can't be completely removed."),
        (client.rotate_secret, secret | {"RotationRules": both}, one_of),
        (client.rotate_secret, secret | {"RotationRules": {}}, one_of),
        (client.rotate_secret, secret | {"RotationRules": {"AutomaticallyAfterDays": 0}}, "must be within 1-1000."),
        (client.rotate_secret, secret | {"RotationRules": {"AutomaticallyAfterDays": 1001}}, "must be within 1-1000."),
        (client.put_secret_value, secret | {"SecretString": "x", "ClientRequestToken": "t" * 31}, "32-64 characters"),
        (client.put_secret_value, secret | {"SecretString": "x", "ClientRequestToken": "t" * 65}, "32-64 characters"),
        (client.create_secret, {"SecretString": "x"}, "`Name` (for CreateSecret) or `SecretId` is missing"),
    ):
        assert words in refused("InvalidParameterException", use, **arguments), arguments
    after = client.describe_secret(**secret)
    assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}
    for right in ({"SecretIdList": [name]}, {"Filters": by_name, "MaxResults": 1}):
        assert [one["SecretString"] for one in client.batch_get_secret_value(**right)["SecretValues"]] == ["one"]
    client.put_secret_value(**secret, SecretString="x", ClientRequestToken="t" * 64)
    client.update_secret_version_stage(**secret, VersionStage="mine", MoveToVersionId=made["VersionId"])
    client.delete_secret(**secret, **window)
