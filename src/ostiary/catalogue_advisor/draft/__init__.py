"""Drafts the intent of a task from a person's words and the catalogues: deterministic, with a reason for each line.

    draft("Pay the bill in bill.txt, up to 50 euros", [(uri, catalogue)], scopes={"bank:write", "files:read"})

A draft denies nothing. Its bounds are those that the operator granted. Its plan lists the effects that the words
suggest, by verbs and things of general English (`ostiary.catalogue_advisor.language`); policies ask about an effect
outside the plan, unless its values are the person's. Where the words leave the doing to a document (`do what the note
says`), the plan has every effect but those that destroy or administer, and the origins of their arguments decide. A
person or a policy accepts a draft, or edits it.
"""

from ostiary.catalogue_advisor.draft.drafting import Draft, Line, draft, plan_of

__all__ = ["Draft", "Line", "draft", "plan_of"]
