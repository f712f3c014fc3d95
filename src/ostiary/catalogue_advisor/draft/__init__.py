"""Drafts of the intent of a task from a person's words and the catalogues: deterministic, with a reason for each line.

    draft("Pay the bill in bill.txt, up to 50 euros", [(uri, catalogue)], scopes={"bank:write", "files:read"})

A draft denies nothing. Its bounds are the bounds that the operator gave. Its plan lists the effects that the words
suggest, by verbs and nouns of general English (`ostiary.catalogue_advisor.language`). Policies ask a person about an
effect outside the plan, unless all values of the call come from the person. If the words refer to instructions in a
document (`do what the note says`), the plan has every effect except destroying and administering, and the origins of
the arguments decide. A person or a policy accepts or edits a draft.
"""

from ostiary.catalogue_advisor.draft.drafting import Draft, DraftLine, draft, plan_of

__all__ = ["Draft", "DraftLine", "draft", "plan_of"]
