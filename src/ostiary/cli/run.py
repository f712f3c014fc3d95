"""`ostiary run`: an existing agent, with a guard in front of each of its MCP servers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.markup import escape

from ostiary import ambient
from ostiary.agent import Agent
from ostiary.cli.files import read_json
from ostiary.cli.names import Names
from ostiary.cli.output import err
from ostiary.cli.run_folder import run_folder
from ostiary.cli.session import Here, Session
from ostiary.cli.usage import Usage
from ostiary.keys import Credential, load_key
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.proxy.upstream import check_url
from ostiary.run.apis import api_servers, as_it_is, name_apis, variable_of
from ostiary.run.configs import Config, Server, check_names, expand
from ostiary.run.delivery import delivery, has_config, source_of
from ostiary.run.egress import (
    EGRESS_SERVER,
    NOT_HIDDEN,
    CommandUser,
    EgressOptions,
    egress_variables,
    explain_visibility,
    find_user,
    forbid_dumps,
    upstream_tls,
)
from ostiary.run.enlist import Place, agent_name, enlist, list_changed_servers, place_of, refresh_catalogues
from ostiary.run.events import Listener
from ostiary.run.gate import stored_mode
from ostiary.run.local import LocalServers
from ostiary.run.output import RunOutput
from ostiary.run.plan import Plan
from ostiary.run.secrets import CommandSecrets, SecretVariable, parse_variables, read_secrets

TTL_S = 3600
NO_EGRESS = EgressOptions()


def run(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    config: Path | None = None,
    config_env: str | None = None,
    agent: str | None = None,
    owner: str | None = None,
    purpose: str | None = None,
    bounds: Path | None = None,
    on_behalf_of: str | None = None,
    http: tuple[str, ...] = (),
    openapi: tuple[str, ...] = (),
    secret: tuple[str, ...] = (),
    secret_fd: tuple[str, ...] = (),
    refresh: bool = False,
    quiet: bool = False,
    egress: Annotated[EgressOptions, Parameter(name="*")] = NO_EGRESS,
    session: Here,
) -> None:
    """Run an agent that you have, with a guard in front of its MCP servers.

    Registers a missing agent with a key, and a resource for each server, in watch mode: every call passes, and a line
    shows the verdict that enforcement would give. If a server of the agent is enforced already, a new one is too. Your
    files stay unchanged: COMMAND gets a copy of its configuration of MCP servers. COMMAND gets the path of the copy in
    one of four places: in place of `{mcp_config}` in its words, in place of the file after its option `--mcp-config`,
    in the environment variable that --config-env names, or in the option of a program that this command knows. HTTP
    APIs are guarded as well: COMMAND gets the local address of an API in the environment variable NAME_URL, and in
    place of `{http:NAME}` in its words. Exits with the exit code of COMMAND.

        ostiary run -- claude
        ostiary run -- python my_agent.py --mcp-config mcp.json
        ostiary run --config mcp.json --config-env MCP_CONFIG -- ./agent
        ostiary run --http shop=https://shop.example --openapi shop=shop.json -- ./agent
        ostiary run --secret API_KEY=secret/shared/shop#api_key -- ./agent
        ostiary run --egress --user agent -- ./agent

    Args:
        command: The program and its words, after `--`.
        config: Configuration of the MCP servers of COMMAND. Default: .mcp.json, .cursor/mcp.json or .vscode/mcp.json,
            or the configuration of the user.
        config_env: Environment variable in which COMMAND expects the path of its configuration.
        agent: Name of the agent. Default: the name of the program or of the script that it runs; for a name such as
            main.py, the name of the folder.
        owner: Name of the person or team that is responsible for an agent that this command registers. Default: the
            owner of the agent whose credential you use.
        purpose: Declare a task with this purpose for the run, instead of the standing task.
        bounds: JSON file of authorization_details that bound the task, such as `ostiary suggest` writes.
        on_behalf_of: Name of the person on whose behalf the agent runs; the run can use the person's connected
            accounts.
        http: NAME=URL of an HTTP API that COMMAND calls; may be given several times.
        openapi: NAME=FILE, the OpenAPI document (JSON) of the API that --http names NAME: each operation is a tool.
            Without it, each HTTP method is a tool.
        secret: NAME=PATH or NAME=PATH#MEMBER, a secret that COMMAND gets in the variable NAME; may be given
            several times.
        secret_fd: Like --secret, but the variable NAME contains the path of a file in memory that has the value; the
            value itself is not in the environment.
        refresh: List the tools of the servers again, and propose them as new catalogues. All servers must be in watch
            mode.
        quiet: Print neither a line for each call nor a summary.
        egress: Options of the egress proxy.
    """
    if not command:
        raise Usage("no command was given", hint="give the agent's command: ostiary run -- COMMAND ...")
    egress.check()
    user = None if egress.user is None else find_user(egress.user)
    environment = ambient.environment()
    apis = api_servers(http, openapi)
    variables = parse_variables(secret, secret_fd)
    _check_variables(
        [
            *(one.name for one in variables),
            *(variable_of(one.name) for one in apis),
            *([] if config_env is None else [config_env]),
            *(egress_variables("", Path()) if egress.egress else ()),
            *(() if user is None else user.variables),
        ]
    )
    is_mcp_only = not (apis or variables or egress.egress)
    if is_mcp_only or config is not None or has_config(command, config_env=config_env):
        deliver = delivery(command, config_env=config_env)
        in_variable = None if config_env is None else ambient.environ(config_env)
        source = source_of(command, config=config, config_in_variable=in_variable)
    else:
        source, deliver = Config({"mcpServers": {}}, "mcpServers", (), ()), as_it_is(command)
    if user is not None and source.servers:
        raise Usage(
            "--user hides the keys of guards from COMMAND, which needs them to start the guards of its MCP servers",
            hint="leave out --user, or --config",
        )
    servers = (*source.servers, *apis, *((EGRESS_SERVER,) if egress.egress else ()))
    check_names(servers)
    for server in (*source.remote, *apis):
        check_url(expand(server.url or "", environment))
    place = place_of(session, agent_name(command, Path.cwd()) if agent is None else agent)
    output = RunOutput(place.agent, quiet=quiet)
    url = _prepare(session, place, servers, owner=owner, command=command, output=output)
    if refresh:
        refresh_catalogues(session, place, servers, say=lambda line: output.print_line(escape(line)))
    _check_unchanged(place, servers, output)
    with (
        run_folder("ostiary-run-") as folder,
        declared_task(
            load_key(place.credential), url, purpose=purpose, bounds=bounds, on_behalf_of=on_behalf_of
        ) as task,
    ):
        listener = Listener(folder / "events")

        def plan(server: Server) -> Plan:
            return place.plan(server, url=url, task=task, events=folder / "events")

        with (
            output.print_events(listener, Names(session), task=task),
            LocalServers() as proxies,
            run_folder("ostiary-ca-") as shared,
        ):
            local = {one.name: proxies.open(one, plan(one), alarm=output.warn) for one in (*source.remote, *apis)}
            words, more = deliver(_write(folder, source, plan, local))
            words, named = name_apis(words, {one.name: local[one.name] for one in apis})
            if egress.egress:
                _say_visibility(output, user, [place.guard(EGRESS_SERVER), session.credential])
                more |= _open_egress(proxies, plan(EGRESS_SERVER), egress, shared, alarm=output.warn)
            with closing(_read_secrets(variables, place, url, task, output)) as secrets:
                command_environment = environment | more | named | secrets.variables
                code = _start(words, command_environment, secrets.descriptors, user)
    output.summary(place, servers)
    sys.exit(code)


def _check_variables(names: Sequence[str]) -> None:
    """Check that no two options set the same environment variable of the command. Raises Usage otherwise."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Usage(
            f"two options set the variable {twice[0]}",
            hint="choose another name for the API, or another variable for --secret or --config-env",
        )


def _prepare(
    session: Session,
    place: Place,
    servers: Sequence[Server],
    *,
    owner: str | None,
    command: Sequence[str],
    output: RunOutput,
) -> str:
    """Register missing objects and return the URL of the Ostiary server. Raises Unavailable if the server does not
    answer and the agent or a server of its configuration is not registered yet.
    """
    try:
        enlist(session, place, servers, owner=owner, command=command, say=lambda line: output.print_line(escape(line)))
        return session.url
    except Unavailable as error:
        if not place.is_known(servers):
            raise
        output.warn(f"the Ostiary server does not answer: {error.message}")
        return session.url


def _read_secrets(
    variables: Sequence[SecretVariable], place: Place, url: str, task: str | None, output: RunOutput
) -> CommandSecrets:
    """Read the secrets of the command as the agent, under its task. Raises Refused: then the command does not start."""
    if not variables:
        return CommandSecrets({}, ())
    with Agent(load_key(place.credential), url=url) as agent:
        command_secrets = read_secrets(variables, partial(agent.secret, task=task))
    for variable in variables:
        output.print_line(f"{variable.name} is {escape(variable.path)}, not hidden from the agent")
    return command_secrets


def _open_egress(
    proxies: LocalServers, plan: Plan, options: EgressOptions, folder: Path, *, alarm: Callable[[str], None]
) -> dict[str, str]:
    """Open the egress proxy of the command, write the certificate that the command must trust to `folder`, and return
    the environment variables that lead the command to both.
    """
    tls = upstream_tls(options.upstream_ca)
    address = proxies.open_egress(plan, tls=tls, private=options.allow_private, alarm=alarm)
    ca_file = folder / "ca.pem"
    folder.chmod(0o755)
    ca_file.write_bytes(address.ca_pem)
    ca_file.chmod(0o644)
    return egress_variables(address.url, ca_file)


def _say_visibility(output: RunOutput, user: CommandUser | None, files: Sequence[Path]) -> None:
    """Report whether the command could read the secrets that the egress proxy uses."""
    is_sealed = forbid_dumps()
    why = explain_visibility(user, files) or ("" if is_sealed else "the system lets processes read each other's memory")
    if why:
        output.warn(f"secrets of the egress proxy are {NOT_HIDDEN}: {why}")
    else:
        output.print_line("secrets of the egress proxy are hidden from the agent")


def _check_unchanged(place: Place, servers: Sequence[Server], output: RunOutput) -> None:
    """Check that each server is started by the command with which it was registered: the access of one server
    must not pass to another. Warns in watch mode; raises Usage otherwise.
    """
    for server in list_changed_servers(place, servers):
        problem = f"`{place.resource(server)}` was registered with another command"
        if stored_mode(place.mode(server)) != "watch":
            raise Usage(
                problem,
                hint=f"for another agent, use --agent NAME; otherwise: ostiary enforce {place.resource(server)} --off",
            )
        output.warn(f"{problem}; --refresh registers the present command")


@contextmanager
def declared_task(
    credential: Credential,
    url: str | None,
    *,
    purpose: str | None,
    bounds: Path | None,
    on_behalf_of: str | None = None,
) -> Iterator[str | None]:
    """Declare a task that ends with the block, and yield its id; without arguments, yield None (the standing task).
    Raises Usage for a file `bounds` that does not contain a list.
    """
    if purpose is None and bounds is None and on_behalf_of is None:
        yield None
        return
    details = None if bounds is None else read_json(bounds)
    if bounds is not None and not isinstance(details, list):
        raise Usage(
            f"{bounds} does not contain a JSON list",
            hint='write a list such as [{"type": "tool", "locations": ["https://notes.example/mcp"]}]',
        )
    with (
        Agent(credential, url=url) as agent,
        agent.task(purpose or "a run", bounds=details, ttl=TTL_S, on_behalf_of=on_behalf_of) as task,
    ):
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(TTL_S / 4):
                try:
                    task.renew(TTL_S)
                except Refused as error:
                    err.print(f"the task is not renewed: {error}", style="yellow", markup=False)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield task.id
        finally:
            ended.set()
            thread.join()


def _write(folder: Path, source: Config, plan_of: Callable[[Server], Plan], local: Mapping[str, str]) -> Path:
    """Write the copy of the configuration of MCP servers, and a plan for the proxy of each stdio server."""

    def front(server: Server) -> list[str]:
        plan = folder / f"{server.word}.plan"
        plan.write_bytes(msgspec.json.encode(plan_of(server)))
        return [sys.executable, "-m", "ostiary.run", str(plan), "--"]

    copy = folder / "mcp.json"
    copy.write_text(json.dumps(source.guarded(front, local), indent=2), "utf-8")
    return copy


def _start(
    words: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int], user: CommandUser | None
) -> int:
    """Run the command with this terminal until it ends; return its exit code, or 128 plus the signal that ended it."""
    other: dict[str, Any] = {}
    if user is not None:
        environment = {**environment, **user.variables}
        other = {"user": user.uid, "group": user.gid, "extra_groups": []}
    try:
        process = subprocess.Popen(words, env=dict(environment), pass_fds=descriptors, **other)
    except OSError as error:
        raise Usage(f"cannot run {words[0]}: {error.strerror}", hint="check the command after `--`") from None

    def pass_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    # The terminal sends an interrupt to the command as well, so this process ignores the interrupt.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
