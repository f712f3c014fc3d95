"""The least that an agent needs, from what was seen of it: scopes, bounds and a policy. Pure, and always the same.

Nothing is guessed: each condition holds for every call that was seen, and each line says how many calls it rests on and
names one of them. What cannot be bounded is said.
"""

from ostiary.catalogue_advisor.suggest.agreed import exempt
from ostiary.catalogue_advisor.suggest.conditions import infer
from ostiary.catalogue_advisor.suggest.files import policy_files
from ostiary.catalogue_advisor.suggest.suggestion import Line, Seen, Suggestion, counted, seen_call, suggest

__all__ = ["Line", "Seen", "Suggestion", "counted", "exempt", "infer", "policy_files", "seen_call", "suggest"]
