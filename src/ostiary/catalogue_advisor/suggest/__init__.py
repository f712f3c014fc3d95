"""The least access that an agent needs, computed from its recorded calls: scopes, bounds and a policy. Pure and
deterministic.

Every suggested condition holds for every recorded call. Each line of the suggestion states the number of its calls and
names one of them. Arguments for which no condition is possible are listed.
"""

from ostiary.catalogue_advisor.suggest.agreed import exempt
from ostiary.catalogue_advisor.suggest.conditions import infer
from ostiary.catalogue_advisor.suggest.files import policy_files
from ostiary.catalogue_advisor.suggest.suggestion import (
    RecordedCall,
    Suggestion,
    SuggestionLine,
    count_in_words,
    recorded_call,
    suggest,
)

__all__ = [
    "RecordedCall",
    "Suggestion",
    "SuggestionLine",
    "count_in_words",
    "exempt",
    "infer",
    "policy_files",
    "recorded_call",
    "suggest",
]
