"""Logins by service accounts of Kubernetes (HashiCorp Vault, "Kubernetes auth method (API)").

The server sends the token of a login to the TokenReview API of the cluster, which answers whose token it is. The same
token authenticates this request, so the server stores no credential of the cluster.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.request import matches_glob

REVIEW_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
MAX_NAMES = 64
MAX_TEXT = 256
_USER = re.compile(
    r"system:serviceaccount:([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)"
)
_SOURCES = ("serviceaccount_uid", "serviceaccount_name")


class KubernetesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster of a kubernetes method. `kubernetes_ca_cert`: the authorities of the cluster in PEM; empty: the
    authorities of the system.
    """

    kubernetes_host: str = ""
    kubernetes_ca_cert: str = ""
    disable_local_ca_jwt: bool = False


class KubernetesRole(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a role of a kubernetes login method that determine which service accounts it accepts. Names and
    namespaces are patterns, in which `*` stands for any text. `audience`: the audience that the token must have; empty:
    any.
    """

    bound_service_account_names: list[str] = []
    bound_service_account_namespaces: list[str] = []
    audience: str = ""
    alias_name_source: str = _SOURCES[0]


class ServiceAccount(NamedTuple):
    """A service account whose token the cluster has verified, and the audiences of the token."""

    namespace: str
    name: str
    uid: str
    audiences: Collection[str]


def check_config(config: KubernetesConfig) -> None:
    """Check a configuration, except whether the server may connect to its host. Raises Invalid without a host,
    Malformed if the certificate authorities cannot be read.
    """
    if not config.kubernetes_host:
        raise Invalid("no host provided", hint="set kubernetes_host=https://HOST:PORT")
    if config.kubernetes_ca_cert:
        load_pem_certificates(config.kubernetes_ca_cert)


def check_role(role: KubernetesRole) -> None:
    """Check the settings of a role of a kubernetes login method. Raises Invalid for a list of patterns that is empty or
    too long, and for an unknown `alias_name_source`.
    """
    for name in ("bound_service_account_names", "bound_service_account_namespaces"):
        texts = getattr(role, name)
        if not texts:
            raise Invalid(f'"{name}" can not be empty', hint="use `*` for any name")
        if len(texts) > MAX_NAMES or any(len(one) > MAX_TEXT for one in texts):
            raise Invalid(f"`{name}` may have at most {MAX_NAMES} patterns, each of at most {MAX_TEXT} characters")
    if role.alias_name_source not in _SOURCES:
        raise Invalid(f"invalid alias_name_source {role.alias_name_source[:64]!a}", hint=f"use {' or '.join(_SOURCES)}")


def render_review(unverified_jwt: str, *, audience: str) -> bytes:
    """Return the body of a request to the TokenReview API. `audience`: the audience that the token must have; empty:
    the cluster checks its own default audience.
    """
    spec: dict[str, Any] = {"token": unverified_jwt} | ({"audiences": [audience]} if audience else {})
    return msgspec.json.encode({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec})


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    uid: str = ""


class _Status(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()
    audiences: list[str] = []


class _Review(msgspec.Struct, frozen=True):
    status: _Status = _Status()


def parse_review(answer: Mapping[str, Any]) -> ServiceAccount | None:
    """Return the service account in a token review; None if the cluster refused the token, or the token does not belong
    to a service account. Raises BackendFailed for any other response.
    """
    try:
        status = convert(answer, _Review).status
    except msgspec.ValidationError:
        raise BackendFailed("the response of the cluster is not a token review") from None
    if not status.authenticated:
        return None
    if (match := _USER.fullmatch(status.user.username)) is None:
        return None  # the token belongs to a person or a node
    return ServiceAccount(match[1], match[2], status.user.uid[:MAX_TEXT], status.audiences)


def refusal_of(role: KubernetesRole, account: ServiceAccount) -> str:
    """Return why a role does not admit a service account; an empty text if the role admits it."""
    if not any(matches_glob(one, account.name) for one in role.bound_service_account_names):
        return "service account name not authorized"
    if not any(matches_glob(one, account.namespace) for one in role.bound_service_account_namespaces):
        return "namespace not authorized"
    if role.audience and role.audience not in account.audiences:
        return "the token is not for the audience of the role"
    return ""


def describe(role: KubernetesRole, account: ServiceAccount) -> dict[str, str]:
    """Return the metadata that the token of a login by this service account gets: its name, namespace and uid."""
    return {
        "service_account_name": account.name,
        "service_account_namespace": account.namespace,
        "service_account_uid": account.uid,
        "service_account_secret_name": "",
    }
