"""What is true of policy sets and of questions to them. Pure: values in, values out."""

from ostiaryd.policy.model.cases import parse_cases, run_cases
from ostiaryd.policy.model.files import (
    POLICIES,
    SCHEMA,
    TESTS,
    PolicyDelta,
    PolicySet,
    check_files,
    decode_actions,
    decode_files,
    digest,
    encode_actions,
    encode_files,
    of_kind,
)
from ostiaryd.policy.model.questions import (
    REGISTERED,
    Question,
    Thing,
    Unanswerable,
    Verb,
    context_of,
    entity_of,
    moment,
)
from ostiaryd.policy.model.text import MAX_POLICIES, check_policies, check_schema

__all__ = [
    "MAX_POLICIES",
    "POLICIES",
    "REGISTERED",
    "SCHEMA",
    "TESTS",
    "PolicyDelta",
    "PolicySet",
    "Question",
    "Thing",
    "Unanswerable",
    "Verb",
    "check_files",
    "check_policies",
    "check_schema",
    "context_of",
    "decode_actions",
    "decode_files",
    "digest",
    "encode_actions",
    "encode_files",
    "entity_of",
    "moment",
    "of_kind",
    "parse_cases",
    "run_cases",
]
