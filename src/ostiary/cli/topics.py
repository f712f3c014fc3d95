"""`ostiary help`: the help of a command, or of a topic that concerns several commands."""

from __future__ import annotations

from cyclopts import App

from ostiary.cli.output import err, table
from ostiary.cli.session import Here, Session
from ostiary.cli.usage import Usage

STOPPING = (
    {
        "command": "agent suspend",
        "effect": "Stop an agent. The agent's tokens end; the tasks wait until the agent is resumed.",
        "state": "suspended",
        "undo": "agent resume",
    },
    {
        "command": "revoke agent",
        "effect": "Suspend an agent in any state, end its tasks, and print when each guard denied.",
        "state": "suspended",
        "undo": "agent resume",
    },
    {
        "command": "agent quarantine",
        "effect": "Isolate a suspicious agent. The agent's tokens end; the tasks wait until the agent is released.",
        "state": "quarantined",
        "undo": "agent release",
    },
    {
        "command": "kill agent",
        "effect": "Quarantine an agent, open an incident, and print when each guard denied.",
        "state": "quarantined",
        "undo": "incident release, by a person",
    },
    {
        "command": "agent decommission",
        "effect": "End an agent for good, with its tasks; its name is never used again.",
        "state": "decommissioned",
        "undo": "nothing",
    },
    {
        "command": "kill KIND",
        "effect": "Stop every call of an owner, resource, segment, model or task, or all calls, "
        "and print when each guard denied.",
        "state": "stopped",
        "undo": "kill lift KIND",
    },
    {
        "command": "task end",
        "effect": "End a task, and its tokens and child tasks.",
        "state": "done, failed, cancelled",
        "undo": "nothing: start another task",
    },
    {
        "command": "revoke task",
        "effect": "End a task as cancelled, with its tokens and child tasks, and print when each guard denied.",
        "state": "cancelled",
        "undo": "nothing: start another task",
    },
    {
        "command": "revoke token",
        "effect": "Revoke a token and the tokens derived from it.",
        "state": "revoked",
        "undo": "nothing: the agent can get another token",
    },
    {
        "command": "revoke key",
        "effect": "Revoke a key and everything obtained with it, and print when each guard denied.",
        "state": "revoked",
        "undo": "nothing: add another key",
    },
    {
        "command": "revoke owner",
        "effect": "Record that a person left. The person's agents pass to deputies, or are suspended.",
        "state": "left",
        "undo": "person return, then agent resume",
    },
    {
        "command": "person suspend",
        "effect": "Suspend a person. Sessions, consents, and their tasks and tokens end.",
        "state": "suspended",
        "undo": "person resume",
    },
    {
        "command": "person end-sessions",
        "effect": "End the sessions of a person in browsers.",
        "state": "ended",
        "undo": "nothing: the person signs in again",
    },
    {
        "command": "person revoke-key",
        "effect": "Revoke a key of a person, and the tokens of the person.",
        "state": "revoked",
        "undo": "nothing: person add-key",
    },
    {
        "command": "client stop",
        "effect": "Stop an OAuth client for all people. The consents to the client end.",
        "state": "stopped",
        "undo": "client approve",
    },
    {
        "command": "consent revoke",
        "effect": "Revoke a consent, and end its tokens and tasks.",
        "state": "revoked",
        "undo": "nothing: the person consents again",
    },
    {
        "command": "role revoke",
        "effect": "Revoke a role of a person or team.",
        "state": "not in the list",
        "undo": "role grant",
    },
    {
        "command": "key revoke",
        "effect": "Revoke a key of an agent and everything obtained with it.",
        "state": "revoked",
        "undo": "nothing: add another key",
    },
    {
        "command": "agent revoke-secret",
        "effect": "Revoke a client secret, all bearer tokens of its agent, and the tokens that the agent got with a"
        " secret.",
        "state": "not in the list",
        "undo": "nothing: agent create-secret",
    },
    {
        "command": "resource revoke-secret",
        "effect": "Revoke a client secret of a resource, by which it introspects tokens.",
        "state": "not in the list",
        "undo": "nothing: resource create-secret",
    },
    {
        "command": "aws-key revoke",
        "effect": "Revoke an access key of an agent.",
        "state": "not in the list",
        "undo": "nothing: aws-key create",
    },
    {
        "command": "pep revoke",
        "effect": "Revoke a gateway (PEP) and its keys.",
        "state": "revoked",
        "undo": "nothing: pep create",
    },
    {
        "command": "acme key revoke",
        "effect": "Revoke the key of an ACME account. The account is deactivated.",
        "state": "revoked",
        "undo": "nothing: acme key create",
    },
    {
        "command": "cert revoke",
        "effect": "Revoke a certificate and everything obtained with it.",
        "state": "revoked",
        "undo": "nothing: cert issue",
    },
    {
        "command": "ca revoke",
        "effect": "Revoke an intermediate authority and its certificates.",
        "state": "revoked",
        "undo": "nothing: certificates are issued again",
    },
    {
        "command": "lease revoke",
        "effect": "Revoke a lease, and remove its account or token.",
        "state": "revoking, then not in the list",
        "undo": "nothing: the agent can get another lease",
    },
    {
        "command": "connected-account revoke",
        "effect": "End a connected account, and revoke its tokens at the provider.",
        "state": "ending, then not in the list",
        "undo": "nothing: the person connects the account again",
    },
    {
        "command": "secret seal",
        "effect": "Seal the secrets: no value can be read or written.",
        "state": "sealed",
        "undo": "secret unseal",
    },
    {
        "command": "incident decommission",
        "effect": "Decommission the agent of an incident.",
        "state": "decommissioned",
        "undo": "nothing",
    },
)
"""Every command that stops something: its effect, the state afterwards, and the command that undoes it."""


def _compare_stopping(session: Session) -> None:
    """Print the commands that stop agents, tasks, tokens and other things."""
    columns = {"command": "OSTIARY", "effect": "EFFECT", "state": "STATE", "undo": "UNDO"}
    session.show([*STOPPING], lambda rows: table(rows, columns, empty=""))
    if not session.as_json and err.is_terminal:
        session.remark("docs/reference/stopping.md explains which command to use")


TOPICS = {"stopping": _compare_stopping}
"""The function that prints each topic; the help of `help_topic` lists the topics."""


def help_topic(*words: str, session: Here) -> None:
    """Show the help of a command or a topic.

    Topics: stopping.

    Args:
        words: Words of a command, such as agent list, or a topic; by default, the list of commands.
    """
    if (print_topic := TOPICS.get(" ".join(words))) is not None:
        print_topic(session)
        return
    from ostiary.cli import NAMES, app, load_help

    if words and words[0] in NAMES:
        load_help(words[0])
    command: App = app
    for word in words:
        if word not in command:
            raise Usage(
                f"no command and no topic is called `{' '.join(words)}`",
                hint=f"the topics: {', '.join(TOPICS)}; the commands: ostiary --help",
            )
        command = command[word]
    app.help_print([*words])
