"""Operations on approval requests: one function per verb, each within the caller's act."""

from ostiaryd.approvals.flows.answer import answer, cancel, expire, expire_due, forget
from ostiaryd.approvals.flows.ask import ask
from ostiaryd.approvals.flows.backchannel import Backchannel, begin_backchannel
from ostiaryd.approvals.flows.calls import ask_about_call, find_question, task_of_token
from ostiaryd.approvals.flows.elevate import ElevationRequest, broken_glass, request, show_elevation
from ostiaryd.approvals.flows.plan import ask_plan
from ostiaryd.approvals.flows.propose import propose
from ostiaryd.approvals.flows.requests import Duplicate, NotRequestable, ask_about_question, find_submitted
from ostiaryd.approvals.flows.responsible import list_answerable
from ostiaryd.approvals.flows.show import find_visible, may_see_all, show, show_briefly, show_waiting
from ostiaryd.approvals.store import cancel_all_questions, count_open_questions, get_question

__all__ = [
    "Backchannel",
    "Duplicate",
    "ElevationRequest",
    "NotRequestable",
    "answer",
    "ask",
    "ask_about_call",
    "ask_about_question",
    "ask_plan",
    "begin_backchannel",
    "broken_glass",
    "cancel",
    "cancel_all_questions",
    "count_open_questions",
    "expire",
    "expire_due",
    "find_question",
    "find_submitted",
    "find_visible",
    "forget",
    "get_question",
    "list_answerable",
    "may_see_all",
    "propose",
    "request",
    "show",
    "show_briefly",
    "show_elevation",
    "show_waiting",
    "task_of_token",
]
