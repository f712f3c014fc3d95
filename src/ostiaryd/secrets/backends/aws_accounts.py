"""Users and sessions of an AWS account, by the Query APIs of IAM and STS with Signature Version 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

from ostiaryd.secrets.backends.remote import Remote
from ostiaryd.secrets.model.aws_account import AwsCredentials, AwsCredentialType, AwsRole, AwsRoot
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.sigv4 import sign_request

MEDIA_TYPE = "application/x-www-form-urlencoded; charset=utf-8"
VERSIONS = {"iam": "2010-05-08", "sts": "2011-06-15"}
POLICY_NAME = "ostiary"
MAX_PAGES, MAX_LISTED = 10, 100
"""Maximum number of pages of a list, and of names in a list. The limits of AWS itself are lower."""
Service = Literal["iam", "sts"]


class NoSuchEntity(BackendFailed):
    """AWS has no user, access key, policy or group with the name in the request."""


class AwsAccounts:
    """The users and sessions of one AWS account. Each method raises BackendFailed if AWS refuses the request or does
    not answer.
    """

    def __init__(self, root: AwsRoot, secret_key: str, *, ca_file: str, now: Callable[[], int]) -> None:
        self._root, self._secret_key, self._now = root, secret_key, now
        self._remotes = {"iam": Remote(root.iam_endpoint, ca_file), "sts": Remote(root.sts_endpoint, ca_file)}

    async def create_user(self, name: str, role: AwsRole, check: Callable[[], None]) -> AwsCredentials:
        """Create a user with the rights of `role`, and return its new access key. `check` is called before each request
        to AWS, and raises Refused if the user may not be created any more.
        """
        boundary = {"PermissionsBoundary": role.permissions_boundary} if role.permissions_boundary else {}
        steps: list[tuple[str, dict[str, str]]] = [("CreateUser", {"Path": role.user_path, **boundary})]
        steps += [("AttachUserPolicy", {"PolicyArn": arn}) for arn in role.policy_arns]
        if role.policy_document:
            steps.append(("PutUserPolicy", {"PolicyName": POLICY_NAME, "PolicyDocument": role.policy_document}))
        steps += [("AddUserToGroup", {"GroupName": group}) for group in role.groups]
        for action, parameters in steps:
            check()
            await self._ask("iam", action, {"UserName": name, **parameters})
        check()
        return await self.create_key(name)

    async def create_key(self, name: str = "") -> AwsCredentials:
        """Create an access key of the user `name`, or, without a name, of the server's own user; return the key."""
        answer = await self._ask("iam", "CreateAccessKey", _of_user(name))
        return AwsCredentials(_text(answer, "AccessKeyId"), _text(answer, "SecretAccessKey"))

    async def list_own_keys(self) -> list[str]:
        """Return the ids of the access keys of the server's own user."""
        return await self._list("ListAccessKeys", "", "AccessKeyId")

    async def delete_own_key(self, key: str) -> None:
        """Delete an access key of the server's own user; do nothing if the key does not exist."""
        await self._delete("DeleteAccessKey", {"AccessKeyId": key})

    async def check_key(self) -> None:
        """Check that AWS accepts the access key that this object uses."""
        await self._ask("sts", "GetCallerIdentity", {})

    async def has_user(self, name: str) -> bool:
        """Return whether AWS has a user with this name."""
        try:
            await self._ask("iam", "GetUser", {"UserName": name})
        except NoSuchEntity:
            return False
        return True

    async def delete_user(self, name: str) -> None:
        """Delete the access keys of a user, the user's rights, and the user. Parts that do not exist are skipped."""
        for list_them, member, delete, parameter in (
            ("ListAccessKeys", "AccessKeyId", "DeleteAccessKey", "AccessKeyId"),
            ("ListAttachedUserPolicies", "PolicyArn", "DetachUserPolicy", "PolicyArn"),
            ("ListUserPolicies", "PolicyNames/{*}member", "DeleteUserPolicy", "PolicyName"),
            ("ListGroupsForUser", "GroupName", "RemoveUserFromGroup", "GroupName"),
        ):
            for value in await self._list(list_them, name, member):
                await self._delete(delete, {"UserName": name, parameter: value})
        await self._delete("DeleteUser", {"UserName": name})

    async def _list(self, action: str, name: str, member: str) -> list[str]:
        """Return the text of each element `member` in all pages of a list of AWS; an empty list if the user does not
        exist.
        """
        texts: list[str] = []
        marker: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            try:
                answer = await self._ask("iam", action, {**_of_user(name), **marker})
            except NoSuchEntity:
                return texts
            texts += [element.text or "" for element in answer.iterfind(f".//{{*}}{member}")]
            if len(texts) > MAX_LISTED:
                raise BackendFailed(f"the response of AWS to {action} has more than {MAX_LISTED} names")
            if answer.findtext(".//{*}IsTruncated") != "true":
                return texts
            marker = {"Marker": _text(answer, "Marker")}
        raise BackendFailed(f"the response of AWS to {action} has more than {MAX_PAGES} pages")

    async def _delete(self, action: str, parameters: Mapping[str, str]) -> None:
        try:
            await self._ask("iam", action, parameters)
        except NoSuchEntity:
            return  # deleted before

    async def open_session(self, name: str, role: AwsRole, arn: str, *, seconds: int) -> AwsCredentials:
        """Return the credentials of a new session of `seconds` seconds, restricted by the policies of `role`, if any.
        If the credential type of `role` is ROLE, the session assumes the role with the ARN `arn`; otherwise the session
        is a federation session of the server's user, and `arn` is ignored. AWS shows the session under `name`.
        """
        parameters = {"DurationSeconds": str(seconds)}
        if role.policy_document:
            parameters["Policy"] = role.policy_document
        for number, policy in enumerate(role.policy_arns, start=1):
            parameters[f"PolicyArns.member.{number}.arn"] = policy
        if role.credential_type is AwsCredentialType.ROLE:
            parameters |= {"RoleArn": arn, "RoleSessionName": name}
            answer = await self._ask("sts", "AssumeRole", parameters)
        else:
            answer = await self._ask("sts", "GetFederationToken", {"Name": name, **parameters})
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Arn")
        return AwsCredentials(*(_text(answer, one) for one in names))

    async def _ask(self, service: Service, action: str, parameters: Mapping[str, str]) -> ElementTree.Element:
        content = urlencode({"Action": action, "Version": VERSIONS[service], **parameters}).encode()
        remote = self._remotes[service]
        headers = sign_request(
            content,
            service=service,
            media_type=MEDIA_TYPE,
            host=urlsplit(remote.address).netloc,
            region=self._root.region if service == "sts" else _global_region(self._root.region),
            key_id=self._root.access_key,
            secret=self._secret_key,
            now=self._now(),
        )
        answer = await remote.send("POST", "/", headers=headers, body=content)
        parsed = parse_xml(answer.body)
        if answer.status == 200:
            return parsed
        code = "".join(filter(str.isalnum, parsed.findtext(".//{*}Code") or ""))[:64] or str(answer.status)
        kind = NoSuchEntity if code == "NoSuchEntity" else BackendFailed
        hint = "see the code in the AWS documentation; for AccessDenied, check the rights of the server's user"
        raise kind(f"AWS answers {code} to {action}", hint=hint)


def _of_user(name: str) -> dict[str, str]:
    return {"UserName": name} if name else {}


def _global_region(region: str) -> str:
    """Return the region that serves IAM, of which each partition of AWS has one."""
    if region.startswith("cn-"):
        return "cn-north-1"
    return "us-gov-west-1" if region.startswith("us-gov-") else "us-east-1"


def parse_xml(body: bytes) -> ElementTree.Element:
    """Return the XML document that AWS sent. Raises BackendFailed for text that is not XML; for a document that
    contains `<!`, because a declaration of entities could exhaust the memory; and for UTF-16, in which this check would
    not find `<!`.
    """
    if b"<!" in body:
        raise BackendFailed("the response of AWS contains `<!`; XML with declarations or comments is refused")
    if b"\0" in body:
        raise BackendFailed("the response of AWS contains a null byte, as UTF-16 does; only UTF-8 is accepted")
    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise BackendFailed("the response of AWS is not XML") from None


def _text(answer: ElementTree.Element, name: str) -> str:
    text = answer.findtext(f".//{{*}}{name}") or ""
    if not 0 < len(text) <= 4096 or not text.isascii() or not text.isprintable():
        raise BackendFailed(f"the response of AWS has no `{name}` of 1 to 4096 printable ASCII characters")
    return text
