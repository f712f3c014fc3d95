"""Tokens of versions: the id that a version of a secret has in the API of AWS Secrets Manager."""

from __future__ import annotations

from msgspec.structs import replace

from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.keyvalue import Secret, check_custom, stages_of

MOST_TOKENS = 20
"""Maximum number of stored tokens of a secret. An older version has a computed id."""


def set_token(act: Act, mount: str, path: str, secret: Secret, number: int, token: str) -> Secret:
    """Store the `ClientRequestToken` of the AWS API with which the version `number` of a secret was stored, and which
    is the id of the version there; return the secret. If an earlier version has this token, the version `number` gets a
    computed id instead. The tokens of deleted versions, and of old versions without a staging label, are deleted.
    """
    kept = {*store.keyvalue.version_numbers(act.tx, mount, path)[-MOST_TOKENS:], *stages_of(secret).values()}
    numbers = {key: aws.token_version(key) for key in secret.custom}
    custom = {
        key: kept_token for key, kept_token in secret.custom.items() if (of := numbers[key]) is None or of in kept
    }
    if token not in (kept_token for key, kept_token in custom.items() if numbers[key] is not None):
        custom[f"{aws.VERSION}{number}"] = token
    secret = replace(secret, custom=check_custom(custom))
    keyvalue.set_metadata(act, mount, path, secret)
    return secret
