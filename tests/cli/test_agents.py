"""Commands of agents and persons: the properties that commands set, and the URIs to which people come back."""

from __future__ import annotations

from inspect import getsource, signature

from harness.cli import Commands
from ostiary.cli import agents, persons
from ostiaryd.registry.wire_admin.agent_table import FILTERS
from ostiaryd.registry.wire_admin.agents import AgentChange, NewAgent
from ostiaryd.registry.wire_admin.owners import NewPerson

CALLBACK, BYE = "https://app.example.org/callback", "https://app.example.org/bye"


def test_commands_set_each_property_that_the_api_sets() -> None:
    assert set(NewAgent.__struct_fields__) - {"scopes"} <= set(signature(agents.create).parameters)
    assert {name for name in AgentChange.__struct_fields__ if f'"{name}": ' not in getsource(agents)} == set()
    assert set(NewPerson.__struct_fields__) <= set(signature(persons.create).parameters)


def test_the_list_of_agents_has_an_option_for_each_filter_of_the_api() -> None:
    options = signature(agents.list_agents).parameters.keys() - {"limit", "session"}
    assert options == {query.name for query in FILTERS}


def test_redirect_uris_are_set_shown_and_removed(ostiary: Commands, name: str) -> None:
    ostiary.json("agent", "create", name, "--owner", "ada", "--purpose", "Asks people")
    ostiary.json("agent", "redirect", name, CALLBACK, "--post-logout", BYE)
    for contradiction in ([CALLBACK, "--remove"], ["--post-logout", BYE, "--remove"], ["--post-logout", BYE]):
        refused = ostiary("agent", "redirect", name, *contradiction)
        assert (refused.code, "URI" in refused.err) == (2, True)
    shown = ostiary.json("agent", "redirect", name)
    assert (shown["redirect_uris"], shown["post_logout_redirect_uris"]) == ([CALLBACK], [BYE])
    ostiary.json("agent", "redirect", name, "--remove")
    assert ostiary("agent", "redirect", name).code == 1
    assert ostiary("agent", "redirect", name, "--remove").code == 0, "nothing is left to remove"


def test_a_client_secret_without_a_bearer_exemption_names_the_missing_command(ostiary: Commands, name: str) -> None:
    ostiary.json("agent", "create", name, "--owner", "ada", "--purpose", "Reads")
    made = ostiary("agent", "create-secret", name)
    assert (made.code, "client_secret" in made.out) == (0, True)
    assert f"ostiary agent allow-bearer {name} --resource RESOURCE" in made.err
    ostiary.json("agent", "allow-bearer", name, "--resource", "ostiary")
    made = ostiary("agent", "create-secret", name)
    assert (made.code, made.err) == (0, "")
