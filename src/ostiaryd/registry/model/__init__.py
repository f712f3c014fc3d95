"""What is true of those who exist. Pure: values in, values out."""

from ostiaryd.registry.model.agent import (
    DEFAULT_DEPTH,
    MAX_DEPTH,
    Agent,
    AgentId,
    AgentKey,
    Kind,
    RiskTier,
    State,
    Verb,
    agent_uri,
    check_depth,
    next_state,
    parse_scopes,
    spiffe_id,
)
from ostiaryd.registry.model.caller import ADMIN, APPROVE, DECIDE, READ, SELF, Caller
from ostiaryd.registry.model.delta import AgentDelta, KeyDelta, ResourceDelta, TokenDelta
from ostiaryd.registry.model.holding import LONGEST_TOKEN, Holding, HoldingId, Root
from ostiaryd.registry.model.names import check_email, check_name, check_text
from ostiaryd.registry.model.owner import Owner, OwnerId, Person, PersonId, PersonKey, PersonState, Team, TeamId
from ostiaryd.registry.model.page import Page, parse_page
from ostiaryd.registry.model.resource import Mode, Resource, ResourceId, check_uri, parse_catalogue

__all__ = [
    "ADMIN",
    "APPROVE",
    "DECIDE",
    "DEFAULT_DEPTH",
    "LONGEST_TOKEN",
    "MAX_DEPTH",
    "READ",
    "SELF",
    "Agent",
    "AgentDelta",
    "AgentId",
    "AgentKey",
    "Caller",
    "Holding",
    "HoldingId",
    "KeyDelta",
    "Kind",
    "Mode",
    "Owner",
    "OwnerId",
    "Page",
    "Person",
    "PersonId",
    "PersonKey",
    "PersonState",
    "Resource",
    "ResourceDelta",
    "ResourceId",
    "RiskTier",
    "Root",
    "State",
    "Team",
    "TeamId",
    "TokenDelta",
    "Verb",
    "agent_uri",
    "check_depth",
    "check_email",
    "check_name",
    "check_text",
    "check_uri",
    "next_state",
    "parse_catalogue",
    "parse_page",
    "parse_scopes",
    "spiffe_id",
]
