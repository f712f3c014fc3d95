"""The command line. `--data-dir` and `--json` may stand anywhere; every other option belongs to its command.

A command is imported when it runs: `ostiary --help` loads none of them.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

PLACES, WHO, MAY, WAS = map(Group.create_ordered, ("The server", "Who exists", "What they may", "What happened"))
EVERYWHERE = Group("Everywhere")

COMMANDS = (
    ("serve", "ostiaryd.serve:serve", "Run the server.", PLACES),
    ("init", "ostiary.cli.setup:init", "Register the first owner, resource and agent.", PLACES),
    ("protect", "ostiary.cli.setup:protect", "Register a resource with the tools that it has.", PLACES),
    ("recover", "ostiaryd.recover:recover", "End the recovery of a database that lost a part of its history.", PLACES),
    ("demo", "ostiary.demo:demo", "See it at work on a temporary folder, told while it happens.", PLACES),
    ("run", "ostiary.cli.run:run", "Run an agent that you have, with a guard in front of its MCP servers.", PLACES),
    ("proxy", "ostiary.cli.proxy:proxy", "Add tokens and proofs to the requests of any HTTP or MCP client.", PLACES),
    ("telemetry", "ostiary.cli.telemetry:telemetry", "Take an agent's OpenTelemetry here, and prove its key.", PLACES),
    ("doctor", "ostiary.cli.doctor:doctor", "Prove by experiments, now, that the server does what it must.", PLACES),
    ("keys", "ostiary.cli.keys:keys", "Keys with which the server signs: list, rotate.", PLACES),
    ("feed", "ostiary.cli.feed:feed", "The guards that are connected, and what they have heard.", PLACES),
    ("owner", "ostiary.cli.owners:owner", "Persons who answer for agents.", WHO),
    ("person", "ostiary.cli.persons:person", "Persons with keys, who answer what agents ask.", WHO),
    ("team", "ostiary.cli.owners:team", "Teams that answer for agents together.", WHO),
    ("agent", "ostiary.cli.agents:agent", "Agents: register, list, say what they may, suspend, decommission.", WHO),
    ("key", "ostiary.cli.keys:key", "Keys of an agent: add, rotate, revoke.", WHO),
    ("pep", "ostiary.cli.peps:pep", "Create, rotate and revoke API keys of AuthZEN gateways.", WHO),
    ("resource", "ostiary.cli.resources:resource", "Protected servers, their guards and their tools.", WHO),
    ("catalogue", "ostiary.cli.catalogue:catalogue", "Review what the tools of a resource do and take.", WHO),
    ("task", "ostiary.cli.tasks:task", "Declared tasks: purpose, bounds, an end.", MAY),
    ("token", "ostiary.cli.tasks:token", "Get an access token as an agent, bound to the agent's key.", MAY),
    ("policy", "ostiary.cli.policy:policy", "Policy sets: a folder of Cedar files with their tests.", MAY),
    ("approvals", "ostiary.cli.approvals:approvals", "What agents ask people: list, show, approve, deny.", MAY),
    ("decide", "ostiary.cli.policy:decide", "Ask the decision point; exits with 4 on a deny.", MAY),
    ("search", "ostiary.cli.search:search", "Search permissions by subject, resource or action.", MAY),
    ("whatif", "ostiary.cli.whatif:whatif", "Which recorded verdicts a policy set would change.", MAY),
    ("suggest", "ostiary.cli.suggest:suggest_least", "The least that an agent needs, from what was seen of it.", MAY),
    ("enforce", "ostiary.cli.enforce:enforce", "Switch between watch mode and enforcement.", MAY),
    ("threats", "ostiary.cli.threats:threats", "Threat lists: hosts and indicators checked before each call.", MAY),
    ("revoke", "ostiary.cli.revoke:revoke", "End access with all that came of it, and time each guard.", MAY),
    (
        "kill",
        "ostiary.cli.kill:kill",
        "Stop an agent, an owner, a model, .. at once, and time each guard.",
        MAY,
    ),
    ("elevation", "ostiary.cli.elevations:elevation", "More than an agent has, for a while.", MAY),
    ("incident", "ostiary.cli.incidents:incident", "What was noticed of agents, and what a person says to it.", WAS),
    ("activity", "ostiary.cli.activity:activity", "Watch it live: decisions, findings, actions, who is doubted.", WAS),
    ("clock", "ostiary.cli.clock:clock", "Show the server's time; confirm it after a jump of its wall clock.", WAS),
    ("webhook", "ostiary.cli.webhooks:webhook", "URLs that are told of what happens.", WAS),
    ("signal", "ostiary.cli.signals:signal", "Security events from others and to others.", WAS),
    ("watch", "ostiary.cli.watch:watch", "What is noticed about how agents behave.", WAS),
    ("audit", "ostiary.cli.audit:audit", "The ledger: every act, the refused ones too.", WAS),
)
"""Name, where it is, what it does, and under which heading it is listed."""


def _version() -> str:
    from importlib.metadata import version  # slow to import, and nobody else asks

    return version("ostiary")


app = App(
    name="ostiary",
    help="The doorkeeper for AI agents: identity, task-scoped access, policy as code, a tamper-evident ledger.\n\n"
    "Commands find the server by --data-dir DIR (or OSTIARY_DATA_DIR), or by OSTIARY_URL and "
    "OSTIARY_CREDENTIAL, the path of an administrator's credential.\n\n"
    "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no answer, 4 deny, 5 a verification failed, 6 verdicts change.",
    help_format="plaintext",
    version=_version,
    default_parameter=Parameter(negative=(), show_default=lambda value: value or None),
    result_action="return_value",
)
for _name, _place, _help, _group in COMMANDS:
    app.command(_place, name=_name, help=_help, group=_group)


app.meta.end_of_options_delimiter = ""  # `--` is for the command


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    data_dir: Annotated[Path | None, Parameter(group=EVERYWHERE, help="Data folder of the server.")] = None,
    json: Annotated[bool, Parameter(group=EVERYWHERE, help="Print JSON, errors too.")] = False,
) -> Any:
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    if "session" not in ignored:
        return command(*bound.args, **bound.kwargs)
    from ostiary.cli.session import Session

    session = Session(data_dir, json)
    try:
        return command(*bound.args, **bound.kwargs, session=session)
    finally:
        session.close()


def _everywhere_first(words: list[str]) -> list[str]:
    """The options of every command go before it: an argument may begin with a hyphen, and would take them."""
    first: list[str] = []
    rest: list[str] = []
    given = iter(words)
    for word in given:
        if word == "--":
            rest += [word, *given]
        elif word == "--json" or word.startswith("--data-dir="):
            first.append(word)
        elif word == "--data-dir":
            first += [word, *islice(given, 1)]
        else:
            rest.append(word)
    return first + rest


def main() -> None:
    """The console script."""
    tokens = _everywhere_first(sys.argv[1:])
    try:
        sys.exit(app.meta(tokens, exit_on_error=False, print_error=False) or 0)
    except BrokenPipeError:  # the reader of our output went away, as in `ostiary audit search | head`
        sys.stderr.close()
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 because what is not foreseen is raised again
        from ostiary.cli.failing import end

        end(error, as_json="--json" in tokens)
