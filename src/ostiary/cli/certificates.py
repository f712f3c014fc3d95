"""`ostiary cert`: certificates of agents, and the helper that keeps one renewed in a folder."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from ostiary.cli.files import read_text
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.session import PAGE, Here
from ostiary.cli.usage import Usage
from ostiary.protocol.certificate import KeyType
from ostiary.protocol.errors import Unavailable

if TYPE_CHECKING:
    from ostiary.agent.certificates import AgentCertificate

Reason = Literal[
    "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn"
]
BATCH = 100
"""Maximum number of certificates in one request."""
RELOAD_S = 60
"""Maximum duration of a command of `--reload` in seconds."""
Folder = Annotated[Path, Parameter(name="--dir")]
Credential = Annotated[Path | None, Parameter(name="--as")]

cert = App(name="cert", help="Issue, renew, keep and revoke certificates.")


@cert.command(name="issue")
def issue(
    *,
    folder: Folder,
    credential: Credential = None,
    profile: str = "agent",
    name: tuple[str, ...] = (),
    lifetime: int | None = None,
    task: str | None = None,
    key_type: KeyType = "P-256",
    session: Here,
) -> None:
    """Issue a certificate for a new key, and write both into a folder: key.pem, cert.pem, bundle.pem, tls.pem.

    Args:
        folder: Folder for the files; the key is readable by you alone.
        credential: Credential of the agent that gets the certificate; by default, your own.
        profile: Certificate profile: agent, server, or a profile in the server's configuration.
        name: Name such as dns:api.example.com; by default, the names of the profile. May be given several times.
        lifetime: Lifetime in seconds, at most the lifetime that the profile allows.
        task: Id of the task with which the certificate ends; by default, the standing task.
        key_type: Type of the key.
    """
    from ostiary.agent.certificates import prepare_folder

    prepare_folder(folder)
    session.act_as(credential)
    made = session.agent.certificate(profile, name, lifetime=lifetime, task=task, key_type=key_type)
    made.save(folder)
    session.show(_certificate_body(made), _print_files)


@cert.command(name="issue-many")
def issue_many(
    orders: Path,
    /,
    *,
    folder: Folder,
    credential: Credential = None,
    profile: str = "agent",
    lifetime: int | None = None,
    key_type: KeyType = "P-256",
    session: Here,
) -> None:
    """Issue a certificate for each line of a file, in batches of 100; each has a new key and a folder of its own.

    A refused line is reported, and the others are issued.

    Args:
        orders: File with a line for each certificate: the name of its folder, then its names, separated by spaces.
        folder: Folder in which the folders of the certificates are made.
        credential: Credential of the agent that gets the certificates; by default, your own.
        profile: Certificate profile: agent, server, or a profile in the server's configuration.
        lifetime: Lifetime in seconds, at most the lifetime that the profile allows.
        key_type: Type of the keys.
    """
    from ostiary.agent.certificates import NewKey, prepare_folder, read_issued, request_body

    lines = [words for line in read_text(orders).splitlines() if (words := line.split())]
    names = [name for name, *_ in lines]
    if wrong := next((name for name in names if not {"/", "\0"}.isdisjoint(name) or name in (".", "..")), None):
        raise Usage(f"{wrong!a} is not the name of a folder", hint="begin each line with a name, not with a path")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Usage(f"two lines name the folder {twice!a}", hint="begin each line with a folder of its own")
    for name in names:
        if (folder / name).exists():
            prepare_folder(folder / name)
    session.act_as(credential)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(lines), BATCH):
        part = [(words, NewKey(key_type)) for words in lines[start : start + BATCH]]
        requests = [
            request_body(key, profile=profile, names=own, task=None, lifetime=lifetime, replaces=None)
            for (_, *own), key in part
        ]
        answers = session.api("POST", "/certificates/batch", {"requests": requests})["answers"]
        for ((name, *_), key), answer in zip(part, answers, strict=True):
            if "error" in answer:
                rows.append({"folder": name, "serial": "", "error": answer["error"]["message"]})
                continue
            made = read_issued(answer["certificate"], key)
            made.save(folder / name)
            rows.append({"folder": name, "serial": made.serial, "error": ""})
    columns = {"folder": "FOLDER", "serial": "SERIAL", "error": "ERROR"}
    session.show(rows, lambda rows: table(rows, columns, empty="the file has no line"))
    if refused := sum(bool(row["error"]) for row in rows):
        raise Usage(f"{refused} of {len(rows)} certificates were refused", hint="the column ERROR has the reasons")


@cert.command(name="renew")
def renew(*, folder: Folder, credential: Credential = None, session: Here) -> None:
    """Renew the certificate in a folder: a new key, and the same profile, names, key type and task.

    Args:
        folder: Folder that `ostiary cert issue` wrote.
        credential: Credential of the agent; by default, your own.
    """
    from ostiary.agent.keeping import renew_certificate

    session.act_as(credential)
    session.show(_certificate_body(renew_certificate(session.agent, folder)), _print_files)


@cert.command(name="keep")
def keep(
    *,
    folder: Folder,
    credential: Credential = None,
    profile: str = "agent",
    name: tuple[str, ...] = (),
    lifetime: int | None = None,
    key_type: KeyType = "P-256",
    reload: str | None = None,
    session: Here,
) -> None:
    """Keep a valid certificate in a folder: issue a missing one, and renew it after two thirds of its life.

    A failed renewal and a failed command of `--reload` are tried again. A certificate that has expired is replaced at
    once, and a revoked certificate within 5 minutes. Runs until Ctrl-C. Several processes may keep one folder with the
    same options: one of them renews the certificate, and each runs its own command of `--reload`.

    Args:
        folder: Folder for the files.
        credential: Credential of the agent; by default, your own.
        profile: Certificate profile: agent, server, or a profile in the server's configuration.
        name: Name such as dns:api.example.com; may be given several times.
        lifetime: Lifetime in seconds, at most the lifetime that the profile allows.
        key_type: Type of the keys.
        reload: Command to run at the start and after each change of the files, such as "systemctl reload nginx".
    """
    from ostiary.agent.keeping import CertificateKeeper, CertificateOrder

    words = shlex.split(reload) if reload is not None else []
    if reload is not None and not words:
        raise Usage("`--reload` is empty", hint='give a command: --reload "systemctl reload nginx"')
    session.act_as(credential)

    shown = ""

    def note_change(made: AgentCertificate) -> None:
        nonlocal shown
        if made.serial != shown:
            session.show(_certificate_body(made), lambda one: out.print(_line(one), markup=False))
        shown = made.serial
        if words:
            run_reload(words)

    order = CertificateOrder(profile, name, lifetime=lifetime, key_type=key_type)
    CertificateKeeper(session.agent, folder, order, on_change=note_change, on_failure=session.warn).run()


@cert.command(name="list")
def list_certificates(*, holder: str | None = None, limit: int = PAGE, session: Here) -> None:
    """List certificates, the newest first.

    Args:
        holder: Agent or person, by name or id.
        limit: Largest number of rows.
    """
    columns = {"state": "STATE", "holder": "HOLDER", "names": "NAMES", "ends": "ENDS", "serial": "SERIAL"}
    rows = session.pages("/certificates", "certificates", limit=limit, query={"holder": holder})
    session.show(rows, lambda rows: table([_row(row) for row in rows], columns, empty="no certificate"))


@cert.command(name="show")
def show(serial: str, /, *, session: Here) -> None:
    """Show a certificate, and print it in PEM with its chain.

    Args:
        serial: Serial number in hexadecimal.
    """
    session.show(session.api("GET", f"/certificates/{serial}"), _print_certificate)


@cert.command(name="revoke")
def revoke(serial: str, /, *, reason: Reason = "unspecified", session: Here) -> None:
    """Revoke a certificate, and the tokens and other things that were obtained with it.

    Args:
        serial: Serial number in hexadecimal.
        reason: Reason (RFC 5280); after keyCompromise, the key is never certified again.
    """
    answer = session.api("POST", f"/certificates/{serial}/revoke", {"reason": reason})
    session.show(answer, lambda one: facts(_row(one)))


def run_reload(words: list[str]) -> None:
    """Run the command that reloads a service after a change of its files. Raises Unavailable if the command fails.

    The command has a session of its own, so that a command that does not end in time ends with its child processes.
    """
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        raise Unavailable(f"the command {shlex.join(words)} failed: {error}") from None
    try:
        code = process.wait(RELOAD_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the command {shlex.join(words)} was ended after {RELOAD_S} seconds") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise Unavailable(f"the command {shlex.join(words)} exited with {code}")


def _certificate_body(made: AgentCertificate) -> dict[str, Any]:
    return {
        "serial": made.serial,
        "profile": made.profile,
        "names": list(made.names),
        "not_before": made.not_before // 1_000_000,
        "not_after": made.not_after // 1_000_000,
    }


def _line(one: dict[str, Any]) -> str:
    return f"{one['serial']} until {moment(one['not_after'])}Z: {' '.join(one['names'])}"


def _print_files(one: dict[str, Any]) -> None:
    facts({**one, "not_before": f"{moment(one['not_before'])}Z", "not_after": f"{moment(one['not_after'])}Z"})


def _print_certificate(one: dict[str, Any]) -> None:
    facts(_row(one) | {"profile": one["profile"], "key": one["key_type"], "thumbprint": one["thumbprint"]})
    out.print((one["certificate"] + one["chain"]).rstrip(), markup=False)


def _row(one: dict[str, Any]) -> dict[str, str]:
    return {
        "serial": one["serial"],
        "state": f"{one['state']} ({one['reason']})" if one["reason"] else one["state"],
        "holder": one["holder"] or "server",
        "names": " ".join(one["names"]),
        "ends": f"{moment(one['not_after'])}Z",
    }
