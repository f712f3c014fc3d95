"""The tests of others that this server does not pass, each with the reason that the page on conformance gives."""

from __future__ import annotations

_IDENTITY = "there is no identity engine, whose tokens the tests use"
HVAC: dict[str, str] = {
    "test_jwt::test_configure": _IDENTITY,
    "test_jwt::test_jwt_login": _IDENTITY,
    "test_jwt::test_read_config": _IDENTITY,
}
"""the beginning of `MODULE::TEST`, to the reason"""

_ACCOUNT = "the account in an ARN is 000000000000"
_FILTERS = "there is no filter `owning-service`, and lists are in the order of names"
_KMS = "keys of KMS are refused: the root key of the server seals"
_POLICY = "policies of Cedar decide, not policies of a secret"
_REGIONS = "a server has one region, and replicates nothing"
_ROTATION = "rotation is the server's own, not by Lambda"
_SPACE = "a space counts as a type of character that a password must have"
_ORDER = "in a list of staging labels, AWSCURRENT is the first"
_TAGS = "a secret without tags has no member `Tags`"
_TEXT = "errors have texts of their own, and the member `Message` and the types of AWS's model"
_BATCH = "a secret of a batch without a value is one of `Errors`"
_MOTO_ALONE = "an API of moto itself"
MOTO: dict[str, str] = {
    "test_list_secrets::test_filter_with_owning_service": _FILTERS,
    "test_list_secrets::test_with_all_filter": _FILTERS,
    "test_list_secrets::test_with_filter_with_multiple_values": _FILTERS,
    "test_list_secrets::test_with_filter_with_value_with_multiple_words": _FILTERS,
    "test_list_secrets::test_with_invalid_filter_key": _TEXT,
    "test_list_secrets::test_with_no_filter_": _TEXT,
    "test_policy::": _POLICY,
    "test_secrets_duplication::": _REGIONS,
    "test_secretsmanager::test_batch_get_secret_value_for_secret_id_list_with_deleted_secret": _TEXT,
    "test_secretsmanager::test_batch_get_secret_value_missing_value": _BATCH,
    "test_secretsmanager::test_cancel_rotate_secret": _ROTATION,
    "test_secretsmanager::test_create_secret_with_tag_custom_id": _MOTO_ALONE,
    "test_secretsmanager::test_describe_secret_with_KmsKeyId": _KMS,
    "test_secretsmanager::test_describe_secret_with_arn": _ACCOUNT,
    "test_secretsmanager::test_get_random_include_space_true": _SPACE,
    "test_secretsmanager::test_get_random_too_long_password": _TEXT,
    "test_secretsmanager::test_get_secret_value_by_arn": _ACCOUNT,
    "test_secretsmanager::test_get_secret_version_stage_mismatch": _ROTATION,
    "test_secretsmanager::test_put_secret_value_versions_adds_awscurrent_label": _ORDER,
    "test_secretsmanager::test_rotate_secret": _ROTATION,
    "test_secretsmanager::test_secret_arn": _ACCOUNT,
    "test_secretsmanager::test_untag_resource": _TAGS,
    "test_secretsmanager::test_update_secret_with_KmsKeyId": _KMS,
    "test_server::test_batch_get_secret_value": _TEXT,
    "test_server::test_data_api": _MOTO_ALONE,
    "test_server::test_describe_secret_that_": _TEXT,
    "test_server::test_get_secret_that_": _TEXT,
    "test_server::test_rotate_secret": _ROTATION,
    "test_server::test_update_secret_version_stage": _TEXT,
}
"""the beginning of `MODULE::TEST`, to the reason"""
