"""Configuration: reads one TOML file, the environment and the command line into one frozen value. An unknown key is an
error.

`OSTIARY_<KEY>` in the environment overrides the file; the command line overrides both. The reference page is generated
from `Config`.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from ostiary.authorization.claims import MAX_BEARER_S
from ostiary.authorization.classes import MAX_CLASSES, all_classes, is_class
from ostiary.protocol import canonical
from ostiary.protocol.addresses import check_address, check_server
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.proxies import Network, parse_networks
from ostiary.provenance.noticing.places import MAX_BYTES, Places, parse_places
from ostiaryd.ground.outbound.fetch import check_origin
from ostiaryd.ground.outbound.resolver import parse_name_servers

_TRUST_DOMAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of the server. The name of each setting that is a time ends in its unit."""

    data_dir: Annotated[str, Meta(description="Folder of the root key, the default database and admin.json")]
    listen: Annotated[str, Meta(description="HOST:PORT to listen on; with port 0, the system chooses a free port")] = (
        "127.0.0.1:8700"
    )
    database: Annotated[
        str, Meta(description="sqlite:///PATH or postgresql://...; empty: ostiary.db in the data folder")
    ] = ""
    database_timeout_ms: Annotated[
        int,
        Meta(
            ge=200,
            le=60_000,
            description="Milliseconds without an answer after which PostgreSQL counts as down. A statement may take 5"
            " times as long. If one of several servers of the database hangs, the others wait for it at most 2 times as"
            " long",
        ),
    ] = 2000
    queue_wait_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=60_000,
            description="Maximum time that a request waits in the queue before the database, in milliseconds. After it,"
            " the request is refused with 503, and changes nothing. Requests of authenticated administrators and"
            " persons, and their stops, wait without a limit; logins and token requests do not. Choose a longer time if"
            " writes to the disk of the database sometimes take longer, for example on network storage",
        ),
    ] = 500
    trust_domain: Annotated[str, Meta(description="Name of the trust domain; fixed at the first start")] = ""
    public_url: Annotated[
        str,
        Meta(description="URL that clients use, and the issuer; fixed at the first start; empty: the listen address"),
    ] = ""
    tls: Annotated[
        Literal["", "auto"],
        Meta(
            description="`auto`: the TLS certificate is issued by this server's own authority, and renewed at "
            "two thirds of its lifetime; clients must trust `ca.pem` in the data folder. Empty: the "
            "certificate in `tls_cert`, or no TLS"
        ),
    ] = ""
    tls_cert: Annotated[
        str, Meta(description="PEM file of the TLS certificate and its chain; loaded again after a change")
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file of the key of the TLS certificate, without a password")] = ""
    mtls_listen: Annotated[
        str,
        Meta(
            description="HOST:PORT of a second listener, which asks clients for certificates (mutual TLS, RFC "
            "8705); it uses the same TLS certificate as the first listener. Empty: no second listener"
        ),
    ] = ""
    mtls_url: Annotated[
        str,
        Meta(
            description="URL at which clients with certificates reach the server; empty: the host of the public URL"
            " with the port of `mtls_listen`"
        ),
    ] = ""
    status_listen: Annotated[
        str,
        Meta(
            description="HOST:PORT of a listener without TLS, which serves only revocation lists, OCSP answers and "
            "certificates of authorities; many programs read these only by http. Empty: no such listener"
        ),
    ] = ""
    status_url: Annotated[
        str,
        Meta(
            description="URL in certificates below which programs find revocation lists and OCSP answers; empty: the"
            " host of the public URL with the port of `status_listen`, or the public URL without such a listener"
        ),
    ] = ""
    workload_socket: Annotated[
        str, Meta(description="Path of the Unix socket of the SPIFFE Workload API; empty: no Workload API")
    ] = ""
    resources: Annotated[
        Literal["any", "registered"],
        Meta(
            description="Resources for which a token can be requested: any https resource, or registered resources only"
        ),
    ] = "any"
    token_alg: Annotated[Literal["ES256", "RS256", "EdDSA"], Meta(description="Algorithm that signs access tokens")] = (
        "ES256"
    )
    token_lifetime_s: Annotated[
        int, Meta(ge=10, le=3600, description="Maximum lifetime of an access token, in seconds")
    ] = 300
    bearer_lifetime_s: Annotated[
        int,
        Meta(
            ge=10,
            le=MAX_BEARER_S,
            description="Maximum lifetime of a bearer token (of an agent with a bearer exemption), in seconds",
        ),
    ] = MAX_BEARER_S
    dpop_nonce: Annotated[
        Literal["required", "offered"],
        Meta(description="Whether the authorization server requires its nonce in DPoP proofs (RFC 9449 section 8)"),
    ] = "required"
    client_assertions: Annotated[
        Literal["", "compatible", "strict"],
        Meta(
            description="Forms of `private_key_jwt` that the server accepts. `strict`: the issuer is the only "
            "audience, and `typ` is absent or `client-authentication+jwt` (RFC 7523bis). `compatible`: in addition, "
            "assertions as common libraries make them: the audience is an endpoint of this server, `typ` is `JWT`, "
            "`iat` is absent, or the lifetime is long. Empty: `compatible`, or `strict` on a server that was first "
            "started before this setting existed"
        ),
    ] = ""
    session_lifetime_s: Annotated[
        int, Meta(ge=300, le=2_592_000, description="Maximum lifetime of a person's browser session, in seconds")
    ] = 43_200
    session_idle_s: Annotated[
        int,
        Meta(
            ge=60,
            le=2_592_000,
            description="Time without use after which the browser session of a person ends, in seconds. Pages and"
            " `GET /api/v1/session` are use; other requests to the API are not, because the console repeats them",
        ),
    ] = 7200
    nonce_lifetime_s: Annotated[int, Meta(ge=10, le=3600, description="Validity of a DPoP nonce, in seconds")] = 300
    client_documents: Annotated[
        Literal["open", "approval", "closed"],
        Meta(
            description="Whether a client with a metadata document, whose id is the URL of the document, may ask "
            "people for consent. `open`: every such client may; `approval`: only after an administrator has "
            "approved the client; `closed`: no such client may"
        ),
    ] = "open"
    client_registration: Annotated[
        Literal["open", "approval", "closed"],
        Meta(
            description="Whether a client that registers itself at `/register` may ask people for consent. `open`: "
            "every such client may; `approval`: only after an administrator has approved the client; `closed`: only "
            "a client that registers with an initial access token or the software statement of a trusted issuer can "
            "register. Such a client needs no approval in any case"
        ),
    ] = "open"
    software_statements: Annotated[
        str,
        Meta(
            description="JSON file of the issuers whose software statements (RFC 7591) are trusted: an object with the"
            " JWK Set of each issuer"
        ),
    ] = ""
    certificate_profiles: Annotated[
        str,
        Meta(
            description="TOML file with profiles of certificates, which add to the built-in profiles or replace "
            "them: a table `[profile.NAME]` for each"
        ),
    ] = ""
    certificate_key_type: Annotated[
        Literal["P-256", "P-384", "Ed25519"],
        Meta(description="Type of the keys of a new certificate authority; `ostiary ca init` also makes RSA keys"),
    ] = "P-256"
    hsm_module: Annotated[
        str,
        Meta(
            description="Path of the PKCS #11 library of a hardware security module (HSM), in which the keys of new"
            " certificate authorities are made and stay. Empty: they are in the database, encrypted"
        ),
    ] = ""
    hsm_token: Annotated[str, Meta(description="Label of the token of the HSM")] = ""
    hsm_pin_file: Annotated[str, Meta(description="File with the PIN of the token, which only the server may read")] = (
        ""
    )
    certificate_warning_days: Annotated[
        int,
        Meta(
            ge=0,
            le=90,
            description="Number of days before the expiry of a certificate from which a missing renewal is reported. "
            "Nothing is reported before the last sixth of the lifetime has begun; 0: never",
        ),
    ] = 14
    replay_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="Days for which the facts of a decision are stored for what-if, and after which an approval no"
            " longer counts for plans and for proposals of policies; 0: no facts are stored, and no approval counts",
        ),
    ] = 30
    task_history_days: Annotated[
        int,
        Meta(ge=0, le=3650, description="Days for which a task is kept in the database after its end; 0: forever"),
    ] = 30
    data_classes: Annotated[
        str, Meta(description="Additional data classes, separated by spaces; unknown classes are refused")
    ] = ""
    proxies: Annotated[
        str,
        Meta(description="Networks of reverse proxies whose `X-Forwarded-For` is trusted, separated by spaces"),
    ] = ""
    certificate_proxies: Annotated[
        str,
        Meta(
            description="Networks of reverse proxies whose `Client-Cert` and `Client-Cert-Chain` (RFC 9440) are"
            " trusted, separated by spaces; they must remove these fields from the requests of clients"
        ),
    ] = ""
    max_request_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            le=64 << 20,
            description="Maximum request body of an authenticated caller, in bytes; other callers may send 64 KiB",
        ),
    ] = 1 << 20
    anonymous_connections: Annotated[
        int,
        Meta(
            ge=16,
            le=65_536,
            description="Maximum number of connections of unauthenticated callers from one address; the maximum "
            "for all addresses together is 16 times as many",
        ),
    ] = 256
    feed_heartbeat_ms: Annotated[
        int,
        Meta(
            ge=50,
            le=60_000,
            description="Interval at which the server sends each guard a message (heartbeat), in milliseconds. "
            "Choose a value far below the `max_age` of every guard (5 s by default): a guard that gets no message "
            "for `max_age` denies every call. A guard whose `max_age` is shorter than this interval denies every "
            "call, and states the reason",
        ),
    ] = 1000

    question_lifetime_s: Annotated[
        int,
        Meta(ge=30, le=604_800, description="Maximum time that an approval request waits for an answer, in seconds"),
    ] = 3600
    approval_lifetime_s: Annotated[int, Meta(ge=30, le=86_400, description="Lifetime of an approval, in seconds")] = 900
    approvals_to_propose: Annotated[
        int,
        Meta(
            ge=2,
            le=100,
            description="Number of approvals of calls of one tool to one recipient or payee (in different tasks, or on "
            "different days of a standing task) after which Ostiary proposes a policy that permits such calls "
            "without approval",
        ),
    ] = 5
    approvers: Annotated[
        str,
        Meta(
            description="Persons and teams that may answer the approval requests of every agent, in addition to its"
            " owner, by name, separated by spaces"
        ),
    ] = ""
    respond_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Maximum percentage of the active agents against which playbooks may act within an hour "
            "without a person's review; at least one agent; 0: none",
        ),
    ] = 10
    halt_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Maximum percentage of the active agents that playbooks may stop (`freeze`, "
            "`quarantine`, `revoke`) within a day without a person's review; at least one agent; 0: "
            "none. Above this percentage, playbooks only restrict agents to reading",
        ),
    ] = 5
    opa_url: Annotated[
        str, Meta(description="URL of an Open Policy Agent that policy sets may ask; https, except on this machine")
    ] = ""
    rego_ms: Annotated[
        int, Meta(ge=10, le=5000, description="Time limit of one Rego or OPA evaluation, in milliseconds")
    ] = 200
    narrow_budget: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Limit on mistaken restrictions: in how many of 10,000 tasks (counted for each agent, and for "
            "all agents together) a finding of a statistical detector may restrict an honest agent before a person "
            "decides. 0: such findings restrict no agent. Findings with certain evidence do not depend on this setting",
        ),
    ] = 5

    places: Annotated[
        str,
        Meta(
            description="File with the places of networks, for the detector of impossible travel. Each line is NETWORK"
            " LATITUDE LONGITUDE (degrees), separated by spaces"
        ),
    ] = ""
    private_hosts: Annotated[
        str,
        Meta(
            description="Hosts without public addresses that URLs in API requests (webhooks, streams, issuers, "
            "threat lists) may name, separated by spaces; metadata services of clouds are always denied"
        ),
    ] = ""
    ca_file: Annotated[
        str,
        Meta(
            description="PEM file of certificate authorities that the server trusts, in addition to those of the "
            "system, in requests to OAuth clients (metadata documents, keys, logout notices), to bundle endpoints of "
            "federated trust domains, to back ends of the vault, and to services whose secrets it rotates"
        ),
    ] = ""
    acme_networks: Annotated[
        str,
        Meta(
            description="Private networks whose hosts the validation of ACME challenges may visit, separated by "
            "spaces; public addresses are always permitted, metadata services of clouds never"
        ),
    ] = ""
    acme_resolvers: Annotated[
        str,
        Meta(
            description="DNS servers for the validation of ACME challenges, ADDRESS[:PORT] separated by spaces; empty:"
            " those of the system"
        ),
    ] = ""
    acme_caa_domains: Annotated[
        str,
        Meta(
            description="Domain names by which CAA records (RFC 8659) permit this authority, separated by "
            "spaces; empty: CAA records are not checked"
        ),
    ] = ""
    acme_http_port: Annotated[
        int, Meta(ge=1, le=65_535, description="Port on which http-01 challenges are validated (RFC 8555: 80)")
    ] = 80
    acme_tls_port: Annotated[
        int, Meta(ge=1, le=65_535, description="Port on which tls-alpn-01 challenges are validated (RFC 8737: 443)")
    ] = 443
    secret_databases: Annotated[
        str,
        Meta(
            description="Database servers on which the vault may create accounts for agents: HOST:PORT, or a Unix"
            " socket (PostgreSQL: its folder; MySQL: its path), separated by spaces; empty: none"
        ),
    ] = ""
    secret_backends: Annotated[
        str,
        Meta(
            description="Addresses of existing stores that back ends may have, and of the IAM and STS endpoints of "
            "AWS, separated by spaces: https://HOST[:PORT], an absolute folder, or env:PREFIX_ for the environment "
            "variables of the server whose names begin with PREFIX_; empty: none"
        ),
    ] = ""
    rotation_commands: Annotated[
        str,
        Meta(
            description="TOML file of the commands that may rotate secrets: a table `[command.NAME]` for each;"
            " empty: none"
        ),
    ] = ""
    aws_region: Annotated[
        str, Meta(pattern=r"\A[a-z0-9-]{1,40}\Z", description="Region of the API of AWS Secrets Manager at /aws")
    ] = "us-east-1"
    aws_account: Annotated[
        str,
        Meta(pattern=r"\A[0-9]{12}\Z", description="Account in the ARNs of the API of AWS Secrets Manager at /aws"),
    ] = "000000000000"
    mail_server: Annotated[
        str,
        Meta(description="Mail server for alerts: smtps://HOST[:PORT], or smtp://HOST[:PORT] with STARTTLS"),
    ] = ""
    mail_from: Annotated[str, Meta(description="Sender address of alerts by mail")] = ""
    mail_user: Annotated[
        str, Meta(description="User name at the mail server; empty: the mail server requires no password")
    ] = ""
    mail_password: Annotated[str, Meta(description="Password at the mail server; set it in the environment")] = ""

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """Return the networks of the trusted reverse proxies, parsed from the setting `proxies`."""
        return parse_networks(self.proxies)

    @property
    def certificate_networks(self) -> tuple[Network, ...]:
        """Return the networks of the reverse proxies that forward client certificates, parsed from the setting
        `certificate_proxies`.
        """
        return parse_networks(self.certificate_proxies)

    @property
    def offers_mtls(self) -> bool:
        """Return whether clients can show certificates, to a listener of this server or to a proxy."""
        return bool(self.mtls_listen or self.certificate_proxies)

    @property
    def mtls_base(self) -> str:
        """Return the URL at which clients with certificates reach the server; empty if they use the public URL, or if
        no listener or proxy asks for certificates.
        """
        if self.mtls_url or not self.mtls_listen:
            return self.mtls_url
        public = urlsplit(self.public_url)
        return f"https://{_bracketed(public.hostname)}:{self.mtls_listen.rpartition(':')[2]}{public.path}"

    @property
    def status_base(self) -> str:
        """Return the base URL of the revocation lists and of the OCSP responder, as certificates of this server name
        them.
        """
        if self.status_url or not self.status_listen:
            return self.status_url or self.public_url
        host = _bracketed(urlsplit(self.public_url).hostname)
        return f"http://{host}:{self.status_listen.rpartition(':')[2]}"

    @property
    def own_url(self) -> str:
        """Return the URL of the listener on `listen`: `https` if the listener uses TLS, otherwise `http`. If no public
        URL is configured, the public URL is this URL.
        """
        return f"{'https' if self.has_tls else 'http'}://{self.listen}"

    @property
    def has_tls(self) -> bool:
        """Return whether the listener on `listen` uses TLS."""
        return bool(self.tls_cert or self.tls)

    @property
    def folder(self) -> Path:
        """Return the path of the data folder."""
        return Path(self.data_dir)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return all data classes: the standard classes and those in `data_classes`."""
        return all_classes(self.data_classes)

    @property
    def approvers_of_all(self) -> tuple[str, ...]:
        """Return the persons and teams in `approvers`, who may answer the approval requests of every agent."""
        return tuple(self.approvers.split())

    @property
    def private(self) -> frozenset[str]:
        """Return the hosts in `private_hosts`. If another party names a URL, such as that of a webhook, the server
        sends requests to these hosts although their addresses are not public.
        """
        return frozenset(self.private_hosts.split())

    @property
    def database_url(self) -> str:
        """Return the URL of the database: the setting, or the SQLite file in the data folder."""
        return self.database or f"sqlite:///{self.folder / 'ostiary.db'}"

    @property
    def issuer(self) -> str:
        """Return the authorization server's issuer identifier (RFC 8414): the public URL itself, without a
        trailing slash.
        """
        return self.public_url

    @property
    def api(self) -> str:
        """Return the resource identifier of the administration API."""
        return f"{self.public_url}/api/v1"


def load_config(file: Path | None = None, *, environ: dict[str, str] | None = None, **options: Any) -> Config:
    """Return the configuration from the file, the environment and the command line (`options`). Each of them overrides
    the ones before. Raises Invalid for an unreadable file, a missing data folder, an invalid setting, or an unknown
    setting in the file.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Invalid(f"cannot read the configuration {file}: {error}") from error
    environ = dict(os.environ) if environ is None else environ
    for field in Config.__struct_fields__:
        if (value := environ.get(f"OSTIARY_{field.upper()}")) is not None:
            values[field] = value
    values |= {name: value for name, value in options.items() if value is not None}
    if "data_dir" not in values:
        raise Invalid("the data folder is not set", hint="set it with --data-dir DIR", code="usage")
    try:
        return _checked(convert(values, Config, strict=False))
    except msgspec.ValidationError as error:
        raise Invalid(f"configuration: {error}", hint="`docs/reference/configuration.md` lists every key") from error


def read_environment(prefix: str) -> dict[str, str]:
    """Return the environment variables whose names begin with `prefix`, with the prefix removed from the names."""
    return {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}


def read_places(file: str) -> Places:
    """Return the places of networks in the configured file; none if `file` is empty. Raises Invalid for an unreadable
    or malformed file.
    """
    if not file:
        return Places({})
    try:
        with Path(file).open("rb") as opened:
            return parse_places(opened.read(MAX_BYTES + 1).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, "places", error) from error


def read_statement_issuers(file: str) -> dict[str, object]:
    """Return the configured file as a dict: for each trusted issuer of software statements, its JWK Set, which is not
    checked yet. The dict is empty if `file` is empty. Raises Invalid for an unreadable file.
    """
    if not file:
        return {}
    try:
        issuers = canonical.parse(Path(file).read_bytes())
    except (OSError, Malformed) as error:
        raise _unreadable(file, "software_statements", error) from error
    if not isinstance(issuers, dict):
        raise Invalid(
            f"{file} is not a JSON object of issuers and their keys",
            hint='write {"https://issuer.example": {"keys": [..]}}',
        )
    return issuers


def read_certificate_profiles(file: str) -> dict[str, Any]:
    """Return the certificate profiles in the configured file, not checked; none if `file` is empty. Raises Invalid for
    an unreadable file.
    """
    return _read_toml(file, setting="certificate_profiles")


def read_rotation_commands(file: str) -> dict[str, Any]:
    """Return the commands that rotate secrets from the configured file, not checked; none if `file` is empty. Raises
    Invalid for an unreadable file.
    """
    return _read_toml(file, setting="rotation_commands")


def _read_toml(file: str, *, setting: str) -> dict[str, Any]:
    if not file:
        return {}
    try:
        return tomllib.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(file, setting, error) from error


def _unreadable(file: str, setting: str, error: Exception) -> Invalid:
    return Invalid(f"cannot read {file}, the file of the setting `{setting}`: {error}")


def _bracketed(host: str | None) -> str:
    """Return a host as URLs have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in str(host) else str(host)


def _checked(config: Config) -> Config:
    read_places(config.places)
    read_certificate_profiles(config.certificate_profiles)
    read_rotation_commands(config.rotation_commands)
    read_statement_issuers(config.software_statements)
    for name in ("proxies", "certificate_proxies", "acme_networks"):
        try:
            parse_networks(getattr(config, name))
        except ValueError as error:
            raise Invalid(f"{name}: {error}", hint="write, for example, `10.0.0.0/8 2001:db8::/48`") from None
    parse_name_servers(config.acme_resolvers)
    if unfit := [word for word in config.acme_caa_domains.split() if not _DOMAIN.fullmatch(word.lower())]:
        raise Invalid(
            f"acme_caa_domains: {unfit[0][:64]!a} is not a domain name", hint="use a name such as `ca.example.com`"
        )
    if len({bool(config.hsm_module), bool(config.hsm_token), bool(config.hsm_pin_file)}) > 1:
        raise Invalid("set all of hsm_module, hsm_token and hsm_pin_file, or none")
    if bool(config.tls_cert) != bool(config.tls_key):
        raise Invalid("set both tls_cert and tls_key, or none")
    if config.tls and config.tls_cert:
        raise Invalid('set either tls = "auto" or tls_cert, not both')
    if config.mtls_listen and not config.has_tls:
        raise Invalid("mtls_listen needs a TLS certificate", hint='set tls_cert and tls_key, or tls = "auto"')
    if config.mtls_url and not config.mtls_url.startswith("https://"):
        raise Invalid("mtls_url must begin with https://")
    if config.opa_url:
        check_origin(config.opa_url, name="opa_url")
    if config.mail_server:
        check_server(config.mail_server)
        check_address(config.mail_from, name="mail_from")
    if bool(config.mail_user) != bool(config.mail_password):
        raise Invalid("set both mail_user and mail_password, or none")
    if wrong := [name for name in config.classes if not is_class(name)]:
        raise Invalid(f"data_classes: {wrong[0][:64]!a} may contain only lower-case letters, digits, `.`, `_` and `-`")
    if len(config.data_classes.split()) > MAX_CLASSES:
        raise Invalid(f"data_classes: more than {MAX_CLASSES} classes", hint="remove classes")
    if config.trust_domain and not _TRUST_DOMAIN.fullmatch(config.trust_domain):
        raise Invalid(
            f"the trust domain `{config.trust_domain}` must be 1 to 255 lower-case letters, digits, `.`, `-` and `_`, "
            "and begin with a letter or a digit",
            hint="use a name such as example.org",
        )
    if config.public_url:
        check_public_url(config.public_url)
    for name in ("mtls_url", "status_url"):
        if url := getattr(config, name):
            _check_base_url(url, name=name)
    return config


def check_public_url(public_url: str) -> str:
    """Check the setting `public_url`, which is also the issuer identifier, and return it. Raises Invalid for http to
    another machine, a final slash, or another malformed URL.
    """
    url = _check_base_url(public_url, name="the public URL")
    if url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise Invalid(
            f"the public URL `{public_url}` names another machine with http; it must be https",
            hint="run a TLS proxy in front of the server, and set --public-url to its https URL",
        )
    return public_url


def _check_base_url(text: str, *, name: str) -> SplitResult:
    """Return the parts of a URL to which the server appends paths. Raises Invalid for any other URL."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or url.username:
        raise Invalid(f"{name} `{text}` must be http(s)://HOST[:PORT][/PATH]")
    if text.endswith("/"):
        raise Invalid(f"{name} must not end in a slash", hint="remove the slash: URLs are compared by character")
    return url
