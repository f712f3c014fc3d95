"""The chapter about certificates: an agent's certificate is renewed, revoked, and refused by a service."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
from rich.markup import escape

from ostiary.agent.certificates import AgentCertificate, load_certificate
from ostiary.demo.stage import PATIENCE_S, Stage
from ostiary.demo.telling import chapter, note, run, say, shell
from ostiary.protocol.errors import Conflict


def certify_and_revoke(stage: Stage) -> None:
    """Run the chapter of the demo: the helper runs a service with TLS, and the editor gets a certificate to use the
    service.
    """
    chapter("A certificate of an agent: renewed, revoked, refused")
    options = ("cert", "issue", "--as", str(stage.folder / "helper.json"), "--dir", str(stage.folder / "service"))
    run(stage, *options)
    own = ("--as", str(stage.folder / "editor.json"), "--dir", str(stage.folder / "tls"))
    run(stage, "cert", "issue", *own)
    _use(stage)
    note(
        "After two thirds of its lifetime, the certificate is renewed with a new key; `ostiary cert keep` repeats that."
    )
    serial = run(stage, "cert", "renew", *own)["serial"]
    _use(stage)
    note("The key is stolen: its certificate is revoked, and the next revocation list says so.")
    run(stage, "cert", "revoke", serial, "--reason", "keyCompromise")
    _use(stage)
    note("The editor itself is revoked, so it gets no other certificate.")
    run(stage, "revoke", "agent", "editor")
    shell(stage, "cert", "renew", *own)
    stage.output_of("cert", "renew", *own, expect=1)
    say("[red]refused[/]: the editor is not active")


def _use(stage: Stage) -> None:
    """Let the editor connect to the service of the helper, which checks the newest revocation list, and print
    the result.
    """
    service, editor = _load(stage.folder / "service"), _load(stage.folder / "tls")
    context = service.ssl_context(server=True)
    revoked = stage.folder / "revoked.pem"
    revoked.write_text(_list_revoked(stage, service.serial))
    context.load_verify_locations(revoked)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    refusal = _shake_hands(context, editor.ssl_context())
    handshake = f"the service of the helper and the editor, by TLS, with {editor.serial[:16]}…:"
    say(f"{handshake} [red]refused[/], {escape(refusal)}" if refusal else f"{handshake} [green]accepted[/]")


def _load(folder: Path) -> AgentCertificate:
    certificate = load_certificate(folder)
    if certificate is None:
        raise Conflict(f"there is no certificate in {folder}")
    return certificate


def _list_revoked(stage: Stage, serial: str) -> str:
    """Return the present revocation list of the authority that issued a certificate, in PEM."""
    authority = stage.ostiary("cert", "show", serial)["authority"]
    der = httpx2.get(f"{stage.url}/ca/{authority}/crl", timeout=PATIENCE_S).raise_for_status().content
    return ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", "X509 CRL")


def _shake_hands(service: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Connect a client to a service; return the reason why the service refuses the certificate, or an empty text."""
    client.check_hostname = False  # the names of agents are SPIFFE IDs, not hosts
    service_end, client_end = socket.socketpair()
    for end in (service_end, client_end):
        end.settimeout(PATIENCE_S)
    with ThreadPoolExecutor(1) as pool, service_end, client_end:
        dialling = pool.submit(_dial, client, client_end)
        try:
            with service.wrap_socket(service_end, server_side=True) as connection:
                connection.sendall(b"!")
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        finally:
            service_end.close()
            dialling.result()
    return ""


def _dial(client: ssl.SSLContext, end: socket.socket) -> None:
    with suppress(OSError), client.wrap_socket(end) as connection:  # a refused client sees an alert or the end
        connection.recv(1)
