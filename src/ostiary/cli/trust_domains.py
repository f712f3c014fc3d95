"""`ostiary trust-domain`: federation with other trust domains (SPIFFE Federation)."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from ostiary.cli.files import read_json
from ostiary.cli.output import facts, table
from ostiary.cli.session import Here

trust_domain = App(name="trust-domain", help="Add, list and remove trust domains, and allow agents to trust them.")


@trust_domain.command(name="add")
def add(
    name: str,
    /,
    *,
    bundle_url: str,
    endpoint_spiffe_id: str = "",
    bundle: Path | None = None,
    session: Here,
) -> None:
    """Add a trust domain and fetch its bundle. No agent trusts it until you allow it.

    The bundle of this trust domain is at /spiffe/bundle of the server.

    Args:
        name: Name of the trust domain, such as example.org, as its operator told you.
        bundle_url: https://HOST/PATH where the trust domain publishes its bundle.
        endpoint_spiffe_id: SPIFFE ID in the certificate of the server at this URL (profile https_spiffe). Without this
            option, the certificate must have the host name of the URL (https_web).
        bundle: File with the first bundle; needed if the endpoint's SPIFFE ID is in the trust domain that is added.
    """
    new: dict[str, object] = {"name": name, "bundle_url": bundle_url, "endpoint_spiffe_id": endpoint_spiffe_id}
    if bundle is not None:
        new["bundle"] = read_json(bundle)
    session.show(session.api("POST", "/trust-domains", new), facts)


@trust_domain.command(name="list")
def list_trust_domains(*, session: Here) -> None:
    """List trust domains with the state of their bundles."""
    columns = {
        "name": "NAME",
        "sequence": "SEQUENCE",
        "authorities": "X.509",
        "jwt_keys": "JWT",
        "agents": "AGENTS",
        "refreshed_at": "FETCHED",
        "failed": "ERROR",
        "bundle_url": "URL",
    }
    rows = session.pages("/trust-domains", "trust_domains")
    empty = "no trust domain: ostiary trust-domain add --help"
    session.show(rows, lambda rows: table(rows, columns, empty=empty))


@trust_domain.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show a trust domain, the state of its bundle, and the agents whose workloads trust it.

    Args:
        name: Name of the trust domain.
    """
    session.show(session.api("GET", f"/trust-domains/{name}"), facts)


@trust_domain.command(name="refresh")
def refresh(name: str, /, *, session: Here) -> None:
    """Fetch the bundle of a trust domain now.

    Args:
        name: Name of the trust domain.
    """
    session.show(session.api("POST", f"/trust-domains/{name}/refresh"), facts)


@trust_domain.command(name="allow")
def allow(name: str, agent: str, /, *, session: Here) -> None:
    """Allow the workloads of an agent to trust a trust domain.

    Args:
        name: Name of the trust domain.
        agent: Name or id of the agent.
    """
    session.show(session.api("PUT", f"/trust-domains/{name}/agents/{agent}", {}), facts)


@trust_domain.command(name="disallow")
def disallow(name: str, agent: str, /, *, session: Here) -> None:
    """Stop the workloads of an agent from trusting a trust domain.

    Args:
        name: Name of the trust domain.
        agent: Name or id of the agent.
    """
    session.show(session.api("DELETE", f"/trust-domains/{name}/agents/{agent}"), facts)


@trust_domain.command(name="remove")
def remove(name: str, /, *, session: Here) -> None:
    """Remove a trust domain. Workloads lose its bundle.

    Args:
        name: Name of the trust domain.
    """
    session.show(session.api("DELETE", f"/trust-domains/{name}"), lambda _: None)
