"""The command line: `ostiary`. `--data-dir`, `--json` and `--wide` may be written anywhere; every other option belongs
to its command.

The module of a command is imported when the command runs: `ostiary --help` imports none of them.
"""

from __future__ import annotations

import gc
import os
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from ostiary.cli.exit_codes import EXIT_CODES
from ostiary.cli.help_formatter import HelpFormatter

SERVER, IDENTITIES, ACCESS, STOP, HISTORY = map(
    Group.create_ordered, ("Server and clients", "Identities", "Access", "Stop and restore", "Events and history")
)
EVERYWHERE = Group("Options of every command")

COMMANDS = (
    ("serve", "ostiaryd.serve:serve", "Run the server.", SERVER),
    ("init", "ostiary.cli.setup:init", "Register the first owner, resource and agent.", SERVER),
    ("protect", "ostiary.cli.setup:protect", "Register a resource with its tools.", SERVER),
    ("recover", "ostiaryd.recover:recover", "End the recovery of a database that lost a part of its history.", SERVER),
    (
        "demo",
        "ostiary.demo:demo",
        "Demonstrate Ostiary on a temporary folder, with an explanation of each step.",
        SERVER,
    ),
    ("run", "ostiary.cli.run:run", "Run an agent that you have, with a guard in front of its MCP servers.", SERVER),
    ("proxy", "ostiary.cli.proxy:proxy", "Add tokens and proofs to the requests of any HTTP or MCP client.", SERVER),
    ("telemetry", "ostiary.cli.telemetry:telemetry", "Forward an agent's OpenTelemetry to the server.", SERVER),
    ("doctor", "ostiary.cli.doctor:doctor", "Check by experiments that the server works correctly.", SERVER),
    ("keys", "ostiary.cli.keys:keys", "List and rotate the signing keys of the server.", SERVER),
    ("feed", "ostiary.cli.feed:feed", "List the connected guards.", SERVER),
    ("clock", "ostiary.cli.clock:clock", "Show the server's time, and confirm it after a clock jump.", SERVER),
    ("completion", "ostiary.cli.completion:completion", "Print a completion script for a shell.", SERVER),
    ("help", "ostiary.cli.topics:help_topic", "Show the help of a command or a topic.", SERVER),
    (
        "person",
        "ostiary.cli.persons:person",
        "Register and list people; manage their logins, keys and sessions.",
        IDENTITIES,
    ),
    (
        "login-provider",
        "ostiary.cli.login_providers:login_provider",
        "Add, change and remove the identity providers of people.",
        IDENTITIES,
    ),
    ("role", "ostiary.cli.roles:role", "List, grant and revoke the roles of people.", IDENTITIES),
    ("team", "ostiary.cli.teams:team", "Create and change the teams that are accountable for agents.", IDENTITIES),
    (
        "agent",
        "ostiary.cli.agents:agent",
        "Register, list and limit agents; suspend and decommission them.",
        IDENTITIES,
    ),
    (
        "trust-domain",
        "ostiary.cli.trust_domains:trust_domain",
        "Add, list and remove trust domains, and allow agents to trust them.",
        IDENTITIES,
    ),
    (
        "client",
        "ostiary.cli.clients:client",
        "List, approve and stop OAuth clients that no administrator registered.",
        IDENTITIES,
    ),
    ("key", "ostiary.cli.keys:key", "List, add, rotate and revoke the keys of an agent.", IDENTITIES),
    (
        "ca",
        "ostiary.cli.authorities:ca",
        "Create, rotate, revoke and import certificate authorities.",
        IDENTITIES,
    ),
    ("cert", "ostiary.cli.certificates:cert", "Issue, renew, keep and revoke certificates.", IDENTITIES),
    ("consent", "ostiary.cli.consents:consent", "List and revoke consents of people.", IDENTITIES),
    (
        "trust-anchor",
        "ostiary.cli.trust_anchors:anchor",
        "Trust authorities to sign the certificates of clients.",
        IDENTITIES,
    ),
    (
        "secret",
        "ostiary.cli.secrets:secret",
        "Store, read, copy, rotate and delete secrets; seal and unseal them.",
        ACCESS,
    ),
    ("pep", "ostiary.cli.peps:pep", "Create, rotate and revoke API keys of AuthZEN gateways.", IDENTITIES),
    (
        "aws-key",
        "ostiary.cli.access_keys:aws_key",
        "Create, list and revoke access keys for the API of AWS Secrets Manager.",
        IDENTITIES,
    ),
    (
        "egress",
        "ostiary.cli.egress:egress",
        "Put secrets into the requests of agents that do not see the secrets.",
        IDENTITIES,
    ),
    (
        "account-provider",
        "ostiary.cli.account_providers:account_provider",
        "Add, change and remove providers at which people connect accounts.",
        IDENTITIES,
    ),
    (
        "connected-account",
        "ostiary.cli.connected_accounts:connected_account",
        "List and end the accounts that people connected at other providers.",
        IDENTITIES,
    ),
    ("lease", "ostiary.cli.leases:lease", "List and revoke leases of credentials.", IDENTITIES),
    ("acme", "ostiary.cli.acme:acme", "Create, list and revoke the account keys of ACME clients.", IDENTITIES),
    (
        "resource",
        "ostiary.cli.resources:resource",
        "Register protected servers, their guards' keys and their tools.",
        IDENTITIES,
    ),
    (
        "catalogue",
        "ostiary.cli.catalogue:catalogue",
        "Review the catalogue of a resource: effects and arguments.",
        IDENTITIES,
    ),
    ("task", "ostiary.cli.tasks:task", "Start, draft, list and end tasks.", ACCESS),
    ("token", "ostiary.cli.tasks:token", "Get an access token as an agent, bound to the agent's key.", ACCESS),
    (
        "policy",
        "ostiary.cli.policy:policy",
        "Test, activate and list policy sets.",
        ACCESS,
    ),
    ("approvals", "ostiary.cli.approvals:approvals", "List, show, approve and deny the requests of agents.", ACCESS),
    ("decide", "ostiary.cli.policy:decide", "Request a decision; exits with 4 on a deny.", ACCESS),
    ("search", "ostiary.cli.search:search", "Search permissions by subject, resource or action.", ACCESS),
    ("whatif", "ostiary.cli.whatif:whatif", "Show the recorded verdicts that a policy set would change.", ACCESS),
    (
        "suggest",
        "ostiary.cli.suggest:suggest_least",
        "Suggest the least scopes, bounds and policy for an agent.",
        ACCESS,
    ),
    ("enforce", "ostiary.cli.enforce:enforce", "Switch between watch mode and enforcement.", ACCESS),
    (
        "elevation",
        "ostiary.cli.elevations:elevation",
        "Allow, request and list additional access for a limited time.",
        ACCESS,
    ),
    ("threats", "ostiary.cli.threats:threats", "Add, list and remove threat lists, checked before each call.", ACCESS),
    (
        "revoke",
        "ostiary.cli.revoke:revoke",
        "Revoke access with everything derived from it, and print when each guard denied it.",
        STOP,
    ),
    ("kill", "ostiary.cli.kill:kill", "Stop an agent, an owner, a model, .. and print when each guard denied.", STOP),
    (
        "incident",
        "ostiary.cli.incidents:incident",
        "List incidents and decide about them: take, release, narrow, decommission.",
        STOP,
    ),
    ("activity", "ostiary.cli.activity:activity", "Follow decisions, findings, actions and risk scores live.", HISTORY),
    ("watch", "ostiary.cli.watch:watch", "List and explain findings about the behaviour of agents.", HISTORY),
    (
        "webhook",
        "ostiary.cli.webhooks:webhook",
        "Add, list and test deliveries of events to URLs, chats and mail.",
        HISTORY,
    ),
    ("signal", "ostiary.cli.signals:signal", "Exchange security events with other systems.", HISTORY),
    ("audit", "ostiary.cli.audit:audit", "Search, export and verify the ledger.", HISTORY),
)
"""Name, module and function, help, and help group of each command."""
NAMES = frozenset(name for name, *_ in COMMANDS)


def _version() -> str:
    from importlib.metadata import version  # slow to import; only `--version` uses this module

    return version("ostiary")


app: App = App(
    name="ostiary",
    help="Manage identity and access of AI agents: tasks, policy as code, a tamper-evident ledger.\n\n"
    "Commands find the server by --data-dir DIR (or OSTIARY_DATA_DIR), or by OSTIARY_URL and "
    "OSTIARY_CREDENTIAL, the path of an administrator's credential. Commands accept the name or the id of "
    "an object; the first characters of an id are enough if no other id begins with them.\n\n"
    f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}.",
    help_format="plaintext",
    help_formatter=HelpFormatter(lambda: app),
    version=_version,
    default_parameter=Parameter(negative=(), show_default=lambda value: value or None),
    result_action="return_value",
)
for _name, _place, _help, _group in COMMANDS:
    app.command(_place, name=_name, help=_help, group=_group)


def load_help(name: str) -> None:
    """Load the command `name`, so that its help is the docstring of its function in place of the line in `COMMANDS`.
    The help of a group of commands stays.
    """
    if app[name].default_command is not None:
        app[name].help = None


app.meta.end_of_options_delimiter = ""  # pass `--` on to the command


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    data_dir: Annotated[Path | None, Parameter(group=EVERYWHERE, help="Data folder of the server.")] = None,
    json: Annotated[bool, Parameter(group=EVERYWHERE, help="Print JSON, also for errors.")] = False,
    wide: Annotated[bool, Parameter(group=EVERYWHERE, help="Print whole tables, wider than the terminal.")] = False,
) -> Any:
    """Run a command with a session."""
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    if "session" not in ignored:
        return command(*bound.args, **bound.kwargs)
    from ostiary.cli.session import Session
    from ostiary.client import TokenRefused

    session = Session(data_dir, json, is_wide=wide)
    try:
        return command(*bound.args, **bound.kwargs, session=session)
    except TokenRefused as refusal:
        raise session.explain(refusal) from None
    finally:
        session.close()


def _everywhere_first(words: list[str]) -> list[str]:
    """Return `words` with `--data-dir`, `--json` and `--wide` first, and with the present names of commands and options
    of earlier versions. Behind other words, an argument that may begin with a hyphen could consume such an option.
    """
    first: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word in ("--json", "--wide") or word.startswith("--data-dir="):
            first.append(word)
        elif word == "--data-dir":
            value = [*islice(left, 1)]
            (first if value else rest).extend([word, *value])  # without a value, no other word may become the value
        else:
            rest.append(_present_word(word, is_command=not rest, as_json="--json" in words))
    return first + rest


EARLIER_COMMANDS, EARLIER_OPTIONS = {"owner": "person"}, {"--why": "--reason"}
"""Commands and options of earlier versions, by name, and their present names. The command line accepts both names."""


def _present_word(word: str, *, is_command: bool, as_json: bool) -> str:
    """Return the command or the option that replaces one of an earlier version, and print that on standard error;
    return any other word as it is.
    """
    name, equals, value = word.partition("=")
    present = (EARLIER_COMMANDS if is_command else EARLIER_OPTIONS).get(name)
    if present is None:
        return word
    from ostiary.cli.output import remark

    remark(f"`{name}` is now `{present}`", as_json=as_json)
    return present + equals + value


GARBAGE = 200_000
"""Number of new objects that start a garbage collection. Imports create few cycles, and Python's own number, 700, makes
collections take a fifth of the start.
"""


def main() -> None:
    """Run the console script `ostiary`."""
    gc.set_threshold(GARBAGE)
    _replace_closed_streams()
    if sys.argv[1:2] == ["complete"]:  # a completion script calls; its words can be an incomplete command line
        from ostiary.cli.completion import complete

        print("\n".join(complete(app, sys.argv[2:])))
        sys.exit(0)
    tokens = _everywhere_first(sys.argv[1:])
    try:
        code = _run(tokens)
        sys.stdout.flush()
    except BrokenPipeError:  # the program that reads the output has ended, as in `ostiary audit search | head`
        code = 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter writes buffered output at its end
    sys.exit(code)


def _replace_closed_streams() -> None:
    """Open the null device in place of each closed standard stream. Otherwise the next file that the process opens,
    such as the file of a new key, would have the number of the stream and receive its output. Programs that the process
    starts inherit the null device.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)  # `dup2` changes nothing if the null device has the number already
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _run(tokens: list[str]) -> int:
    """Run a command and return its exit code. Raises BrokenPipeError if the reader of the output has ended, SystemExit
    with the exit code of a failed command.
    """
    try:
        if command := next((token for token in tokens if token in NAMES), None):
            load_help(command)
        code: int = app.meta(tokens, exit_on_error=False, print_error=False) or 0
    except BrokenPipeError:
        raise
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # rich's Console turns the error into exit code 1
            raise ended.__context__ from None
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 because `end` raises a defect again
        from ostiary.cli.failures import end

        end(error, as_json="--json" in tokens)
    return code
