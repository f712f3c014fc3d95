"""The tests of others that this server does not pass, each with the reason that the page on conformance gives."""

from __future__ import annotations

_IDENTITY = "there is no identity engine, whose tokens the tests use"
HVAC: dict[str, str] = {
    "test_jwt::test_configure": _IDENTITY,
    "test_jwt::test_jwt_login": _IDENTITY,
    "test_jwt::test_read_config": _IDENTITY,
}
"""the beginning of `MODULE::TEST`, to the reason"""

_KMS = "keys of KMS are refused: the keys of the server seal"
_POLICY = "policies of Cedar decide, not policies of a secret"
_REGIONS = "a server has one region, and replicates nothing"
_ROTATION = "as with AWS, a rotation needs a service that accepts the new value, and moto needs none"
_SPACE = "a password of 4 characters has no room for a space beside the 4 required types"
_TAGS = "a secret without tags has no member `Tags`, also if it had some"
_READ = "`LastAccessedDate` is shown, as by AWS"
_LABELS = "a version without a staging label is not in `VersionIdsToStages`"
_STATUS = "a secret that does not exist has the status 400, as with AWS"
_TEXT = "errors have texts and types of their own where AWS's model has none"
_BATCH = "a secret of a batch without a value is one of `Errors`"
_MOTO_ALONE = "an API of moto itself"
MOTO: dict[str, str] = {
    "test_list_secrets::test_with_invalid_filter_key": _TEXT,
    "test_policy::test_delete_resource_policy": _POLICY,
    "test_policy::test_policies_for_unknown_secrets": _TEXT,
    "test_policy::test_put_resource_policy": _POLICY,
    "test_secrets_duplication::": _REGIONS,
    "test_secretsmanager::test_batch_get_secret_value_for_secret_id_list_with_deleted_secret": _TEXT,
    "test_secretsmanager::test_batch_get_secret_value_missing_value": _BATCH,
    "test_secretsmanager::test_cancel_rotate_secret": _ROTATION,
    "test_secretsmanager::test_create_secret_with_tag_custom_id": _MOTO_ALONE,
    "test_secretsmanager::test_describe_secret_with_KmsKeyId": _KMS,
    "test_secretsmanager::test_get_random_include_space_true": _SPACE,
    "test_secretsmanager::test_get_random_too_long_password": _TEXT,
    "test_secretsmanager::test_get_secret_version_stage_mismatch": _ROTATION,
    "test_secretsmanager::test_rotate_secret": _ROTATION,
    "test_secretsmanager::test_untag_resource": _TAGS,
    "test_secretsmanager::test_update_secret_with_KmsKeyId": _KMS,
    "test_secretsmanager::test_update_secret_without_value": _READ,
    "test_server::test_data_api": _MOTO_ALONE,
    "test_server::test_rotate_secret": _ROTATION,
    "test_server::test_update_secret_version_stage": _LABELS,
    "test_server::test_update_secret_version_stage_validation": _STATUS,
}
"""the beginning of `MODULE::TEST`, to the reason"""
