"""What is true of policy sets and of questions to them. Pure: values in, values out."""

from ostiaryd.policy.model.files import (
    PolicyDelta,
    PolicySet,
    decode_actions,
    decode_files,
    encode_actions,
    encode_files,
)
from ostiaryd.policy.model.load import Loaded, Ready, load, notes, restore, starter
from ostiaryd.policy.model.page import Place, check_same, open_place, page_key, seal_place
from ostiaryd.policy.model.questions import (
    REGISTERED,
    Question,
    Search,
    Sought,
    Thing,
    Unanswerable,
    Verb,
    context_of,
    entity_of,
    moment,
)
from ostiaryd.policy.model.rego import Engine, Program

__all__ = [
    "REGISTERED",
    "Engine",
    "Loaded",
    "Place",
    "PolicyDelta",
    "PolicySet",
    "Program",
    "Question",
    "Ready",
    "Search",
    "Sought",
    "Thing",
    "Unanswerable",
    "Verb",
    "check_same",
    "context_of",
    "decode_actions",
    "decode_files",
    "encode_actions",
    "encode_files",
    "entity_of",
    "load",
    "moment",
    "notes",
    "open_place",
    "page_key",
    "restore",
    "seal_place",
    "starter",
]
