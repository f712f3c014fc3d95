"""What is true of policy sets and of questions to them. Pure: values in, values out."""

from ostiaryd.policy.model.files import (
    PolicyDelta,
    PolicySet,
    decode_actions,
    decode_files,
    encode_actions,
    encode_files,
)
from ostiaryd.policy.model.load import Loaded, load, starter
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

__all__ = [
    "REGISTERED",
    "Loaded",
    "PolicyDelta",
    "PolicySet",
    "Question",
    "Thing",
    "Unanswerable",
    "Verb",
    "context_of",
    "decode_actions",
    "decode_files",
    "encode_actions",
    "encode_files",
    "entity_of",
    "load",
    "moment",
    "starter",
]
