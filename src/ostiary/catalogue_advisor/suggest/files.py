"""Files of a policy set: a policy that limits an agent to the tools of its recorded calls, and tests of the policy."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ostiary.authorization.catalogue import Catalogue, Tool
from ostiary.catalogue_advisor.suggest.suggestion import Suggestion, count_in_words


def policy_files(
    suggestion: Suggestion,
    catalogues: Mapping[str, Catalogue],
    *,
    agent_id: str,
    name: str,
    segments: Mapping[str, str],
) -> dict[str, str]:
    """Return a policy that forbids the agent all tools except those of its recorded calls, and tests of the policy: the
    texts by file name. `segments`: the segment of the agent under its id, and of each resource under its URI.
    """
    called = [(uri, catalogues[uri], catalogues[uri].tools[tool]) for uri, tool in suggestion.tools]
    ids = [f"{catalogue.resource}/{tool.name}" for _, catalogue, tool in called]
    counts = {line.subject: line for line in suggestion.lines if line.kind == "tool"}
    commas = [","] * (len(ids) - 1) + [""]
    listed = "\n".join(
        f"    Tool::{_text(id)}{comma}  // {count_in_words(counts[id].calls)}, for example entry {counts[id].example}"
        for id, comma in zip(ids, commas, strict=True)
    )
    policy = f"""// What `{name}` was seen to call, and nothing else.
@id({_text(f"{name}-calls-what-was-seen")})
@reason({_text(f"`{name}` was never seen to call this")})
@hint({_text(f"ostiary suggest {name}")})
forbid (principal == Agent::{_text(agent_id)}, action == Action::"call", resource is Tool)
unless {{
  [
{listed}
  ].contains(resource)
}};
"""
    own = segments[agent_id]
    cases = [
        _case(f"{name} calls {id}", agent_id, own, id, tool, catalogues[uri].classes(tool), segments[uri], "allow")
        for id, (uri, _, tool) in zip(ids, called, strict=True)
    ]
    for uri, catalogue in sorted(catalogues.items()):
        other = next((one for one in sorted(catalogue.tools) if f"{catalogue.resource}/{one}" not in ids), None)
        if other is not None:
            id, tool = f"{catalogue.resource}/{other}", catalogue.tools[other]
            classes = catalogue.classes(tool)
            cases.append(_case(f"{name} does not call {id}", agent_id, own, id, tool, classes, segments[uri], "deny"))
    return {f"suggested-{name}.cedar": policy, f"suggested-{name}.test.toml": "\n".join(cases)}


def _case(
    name: str, agent_id: str, own: str, id: str, tool: Tool, classes: frozenset[str], segment: str, expect: str
) -> str:
    listed = ", ".join(map(_text, sorted(classes)))
    properties = (
        f"effect = {_text(tool.effect.value)}, segment = {_text(segment)}, "
        f"open_world = {str(tool.open_world).lower()}, confirmed = {str(bool(tool.confirmed)).lower()}, "
        f"data_classes = [{listed}]"
    )
    return f"""[[case]]
name = {_text(name)}
subject = {{ type = "agent", id = {_text(agent_id)}, properties = {{ segment = {_text(own)} }} }}
action = "call"
resource = {{ type = "tool", id = {_text(id)}, properties = {{ {properties} }} }}
expect = "{expect}"
"""


def _text(text: str) -> str:
    """Return a string literal that Cedar and TOML both accept. Names contain no quotes, backslashes or control
    characters.
    """
    return json.dumps(text)
