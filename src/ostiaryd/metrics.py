"""Metrics in the OpenMetrics text format 1.0, which Prometheus reads. The module is above all packages, so a metric may
describe the data of any package.
"""

from __future__ import annotations

from collections.abc import Iterable

from ostiaryd.certs.model import SECOND
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply
from ostiaryd.ground.http.routes import Content, Route
from ostiaryd.registry.model import READ
from ostiaryd.watch.flows.certificates import CertificateFigures, examine_certificates

OPEN_METRICS = "application/openmetrics-text"
_TYPE = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"


async def show_metrics(call: Call) -> Reply:
    """Return metrics of certificates in the OpenMetrics text format.

    The metrics count the certificates in force, the neglected certificates, and the certificates with failed renewals,
    and state the ends of the server's own certificates. A neglected certificate ends soon without a renewal, or its
    renewal fails.
    """
    world = call.world
    figures = await world.db.scan(lambda reader: examine_certificates(reader, world))
    return Reply(200, "".join([*_describe_certificates(figures), "# EOF\n"]).encode(), _TYPE, [NO_STORE])


def _describe_certificates(figures: CertificateFigures) -> Iterable[str]:
    yield from _gauge(
        "ostiary_certificates",
        "Certificates in force.",
        [(f'profile="{_quoted(profile)}"', count) for profile, count in sorted(figures.in_force.items())],
    )
    yield from _gauge(
        "ostiary_certificates_neglected",
        "Certificates in force whose end is near without a renewal, or whose renewal fails.",
        [("", figures.neglected)],
    )
    yield from _gauge(
        "ostiary_certificates_failing", "Certificates in force with failed renewals.", [("", figures.failing)]
    )
    yield from _gauge(
        "ostiary_server_certificate_expiry_timestamp_seconds",
        "End of a certificate of the server itself.",
        [
            (f'certificate="{_quoted(own.name)}",serial="{_quoted(own.serial)}"', own.not_after // SECOND)
            for own in figures.own
        ],
    )


def _gauge(name: str, help_text: str, samples: Iterable[tuple[str, int]]) -> Iterable[str]:
    """Yield a metric whose value can go up and down. `samples`: pairs of labels (`profile="agent"`, or empty) and
    value.
    """
    yield f"# TYPE {name} gauge\n# HELP {name} {help_text}\n"
    for labels, value in samples:
        yield f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


ROUTES = (Route("GET", "/api/v1/metrics", show_metrics, READ, answers={200: Content(media_types=(OPEN_METRICS,))}),)
