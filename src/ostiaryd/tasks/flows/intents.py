"""The intent of a task: the check of who may state it, and the check that the intent of a child task lies within the
intent of its parent.
"""

from __future__ import annotations

import msgspec

from ostiary.catalogue_advisor.draft import plan_of
from ostiary.protocol.errors import Forbidden
from ostiary.protocol.jose import b64u
from ostiary.provenance.intent import Endorsed, Intent, InvalidIntent, Planned, Recorded, SaidBy
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller
from ostiaryd.tasks import store
from ostiaryd.tasks.model import Task

SALT_BYTES = 16


def intent_of(reader: Reader, task: Task) -> Recorded | None:
    """Return the stored intent of a task (the person's request), with the kind of caller that stated the intent; None
    if the task has no intent.
    """
    return None if task.intent is None else store.intents.get(reader, task.intent)


def record_intent(act: Act, task: Task, intent: Intent, doer: Agent, *, by: Caller | None) -> Task:
    """Store the intent of a task (the person's request), which can never change, and return the task with it. An intent
    without a plan (the effects that it needs) gets the plan that the person's words suggest.

    For a task under another one, the intent must lie within the intent of that task. Raises Forbidden if the caller may
    not state the intent, or if the intent goes beyond that of the task above; InvalidIntent for an intent that is not
    valid.
    """
    outer = intent_of(act.tx, task)
    if intent.plan is None:
        above = None if outer is None else outer.intent.plan
        intent = msgspec.structs.replace(intent, plan=_plan(act.tx, task, intent, above))
    if task.parent is not None:
        intent.check_within(None if outer is None else outer.intent)
    for document in intent.endorsed:
        _check_document(act.tx, task, document)
    said_by, stated_by = (_said_by(task, doer, by), by.id if by is not None else "") if outer is None else outer.source
    recorded = Recorded(intent=intent, said_by=said_by, stated_by=stated_by, salt=b64u(act.tx.random(SALT_BYTES)))
    return msgspec.structs.replace(task, intent=store.intents.insert(act.tx, recorded))


def _plan(reader: Reader, task: Task, intent: Intent, above: tuple[Planned, ...] | None) -> tuple[Planned, ...]:
    """Return the plan that the words of an intent suggest, limited to `above`, the plan of the task above, if there is
    one.
    """
    names = sorted({scope.partition(":")[0] for scope in task.scopes})
    resources = [resource for name in names if (resource := registry.get_resource(reader, name)) is not None]
    offered = [(one.uri, tools) for one in resources if (tools := registry.catalogue_of(reader, one)) is not None]
    plan = plan_of(intent.words, offered, scopes=task.scopes, bounds=task.bounds)
    if above is None:
        return plan
    caps = {planned.tool: planned for planned in above}
    return tuple(one.within(caps[one.tool]) for one in plan if one.tool in caps)


def note_intent(act: Act, task: Task) -> None:
    """Write the digest of the task's intent into the ledger entry of this act. The intent itself is not written,
    because nothing can be deleted from the ledger later.
    """
    if (recorded := intent_of(act.tx, task)) is not None:
        registry.fill_entry(act, object=task.task_id, intent=task.intent, said_by=recorded.said_by.value)


def _said_by(task: Task, doer: Agent, by: Caller | None) -> SaidBy:
    """Return the kind of the caller that states the person's words. Raises Forbidden for an agent without this
    permission, because the agent may be manipulated.
    """
    if by is None:
        return SaidBy.ADMINISTRATOR
    if by.kind == "person" and task.person in (None, by.id):
        return SaidBy.PERSON
    if by.is_admin:
        return SaidBy.ADMINISTRATOR
    if by.kind == "person":
        raise Forbidden(
            "the caller may not state the words of another person", hint="let an administrator state the words"
        )
    if by.id == doer.agent_id and doer.speaks:
        return SaidBy.AGENT
    raise Forbidden(
        f"`{doer.name}` may not state the words of its person",
        hint=f"permit it with `ostiary agent allow-words {doer.name}`",
        code="may_not_speak",
    )


def _check_document(reader: Reader, task: Task, document: Endorsed) -> None:
    """Check that the tool of an endorsed document exists, and that the task has its scope. Raises InvalidIntent
    otherwise.
    """
    name, _, tool = document.tool.partition("/")
    resource = registry.get_resource(reader, name)
    catalogue = None if resource is None else registry.catalogue_of(reader, resource)
    if catalogue is None or tool not in catalogue.tools:
        hint = f"list the tools: ostiary resource show {name or 'NAME'}"
        raise InvalidIntent(f"no catalogue has the tool `{document.tool}`", hint=hint)
    if (scope := catalogue.scope(catalogue.tools[tool])) not in task.scopes:
        raise InvalidIntent(f"the task lacks the scope {scope}, which `{document.tool}` needs")
