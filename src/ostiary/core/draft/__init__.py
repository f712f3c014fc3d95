"""What a task should allow, drafted from what a person asked and what there is: deterministic, a reason for each line.

    draft("Pay the bill in bill.txt, up to 50 euros", [(uri, catalogue)], scopes={"bank:write", "files:read"})

Words only narrow what the operator granted: nothing is in a draft that is not within the scopes and the bounds that are
given. Reads stay free. Of the effects those are left out that the words do not call for, by verbs and things of general
English (`ostiary.core.language`); where the doing itself is left to a document (`do what the note says`), all but what
destroys or administers are in, and the origins of their arguments decide. A person or a policy accepts a draft, or
edits it.
"""

from ostiary.core.draft.drafting import Draft, Line, draft

__all__ = ["Draft", "Line", "draft"]
