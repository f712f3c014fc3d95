"""Certificate authorities of a mount (HashiCorp Vault, "PKI secrets engine (API)").

root/generate/TYPE, root/sign-intermediate, root/sign-self-issued    POST; root   DELETE
intermediate/generate/TYPE, intermediate/set-signed                  POST
config/ca, issuers/import/cert, issuers/import/bundle                POST
config/urls, config/crl, config/issuers                              GET, POST
issuers                                                              LIST
issuer/REF                  GET, POST, PATCH, DELETE;  issuer/REF/revoke     POST
roles                       LIST;  roles/NAME                         GET, POST, PATCH, DELETE
issue/NAME, sign/NAME, sign-verbatim[/NAME]                          POST; also below issuer/REF/
revoke, tidy                POST
certs                       LIST;  cert/SERIAL                        GET
crl/rotate                  GET, POST

TYPE is `internal` or `exported`; with `exported`, the response contains the private key of the issuer, once. The
certificates of issuers and the revocation lists are public (`flows.pki_status`).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from ssl import DER_cert_to_PEM_cert

import msgspec
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace

from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.certs.model import NameKind, make_name, parse_csr, parse_serial, read_csr, serial_text
from ostiaryd.certs.model.keys import PrivateKey, encode_public_key, key_type_of
from ostiaryd.certs.model.names import check_count
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import pki, pki_issuers
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.flows.key_generation import take_key
from ostiaryd.secrets.flows.pki_status import render_members
from ostiaryd.secrets.model.login_role import check_role_name
from ostiaryd.secrets.model.pki import (
    DEFAULT_REF,
    MAX_ROLES,
    AuthorityOrder,
    CertificateOrder,
    PkiIssuer,
    PkiRole,
    PkiSettings,
    build_subject,
    check_common_name,
    check_key_type,
    check_names,
    check_role,
    choose_key_type,
    read_common_name,
    read_members,
    read_names,
    rebuild_subject,
    render_serial,
)
from ostiaryd.secrets.model.request import (
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    render_duration,
    render_time,
)

TYPE = "pki"
DESCRIPTION = "certificate authorities of a mount"
OPTIONS: dict[str, str] | None = None
EMPTY = Answer(status=204)
FORMATS = ("pem", "der", "pem_bundle")
SHORTEST_CRL_S, LONGEST_CRL_S = 600, 366 * 86_400


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request to a PKI mount. Raises NothingStored for an unknown path, UnsupportedOperation
    for a method that the path does not support. The operation checks the body when it runs.
    """
    path, is_known = request.path.removesuffix("/"), False
    for pattern, method, action, name, run in _OPERATIONS:
        if (match := re.fullmatch(pattern, path)) is not None:
            is_known = True
            if request.method is method:
                parameters = {key: value for key, value in match.groupdict().items() if value is not None}
                exists = partial(_has_role, mount, parameters["name"]) if name == "write-role" else None
                return Operation(
                    action, path, name, partial(run, mount=mount, request=request, **parameters), exists=exists
                )
    if is_known:
        raise UnsupportedOperation("unsupported operation")
    raise NothingStored("no handler for route", code="no_route")


def _has_role(mount: str, name: str, act: Act) -> bool:
    return store.pki.role(act.tx, mount, name) is not None


# --- issuers


def _generate_root(act: Act, *, mount: str, request: VaultRequest, kind: str) -> Answer:
    order = _read_authority(request)
    signed = pki_issuers.generate_root(act, mount, order, generated=request.private_key)
    key = pki_issuers.open_key(act.tx, signed.issuer, keys=act.tx.keys) if kind == "exported" else None
    return Answer(data={**_render_signed(signed, order, key), **_render_ids(signed.issuer)})


def _generate_intermediate(act: Act, *, mount: str, request: VaultRequest, kind: str) -> Answer:
    order = _read_authority(request)
    issuer, csr = pki_issuers.request_intermediate(act, mount, order, generated=request.private_key)
    pem = csr.public_bytes(Encoding.PEM).decode()
    shown = b64encode(csr.public_bytes(Encoding.DER)).decode() if order.format == "der" else pem
    key = pki_issuers.open_key(act.tx, issuer, keys=act.tx.keys) if kind == "exported" else None
    return Answer(data={"csr": shown, "key_id": issuer.issuer_id, **_render_key(key, order)})


def _import_bundle(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    order = read_members(request.body, AuthorityOrder)
    mapping = pki_issuers.import_bundle(act, mount, order.pem_bundle, needs_key=False)
    return _render_imported(mapping)


def _set_signed(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    order = read_members(request.body, AuthorityOrder)
    return _render_imported(pki_issuers.import_bundle(act, mount, order.certificate, needs_key=True))


def _render_imported(mapping: dict[str, str]) -> Answer:
    keys = [key for key in mapping.values() if key]
    return Answer(data={"imported_issuers": list(mapping), "imported_keys": keys, "mapping": mapping})


def _sign_intermediate(act: Act, *, mount: str, request: VaultRequest, ref: str = DEFAULT_REF) -> Answer:
    order = _read_authority(request)
    csr = parse_csr(read_csr(order.csr), may_be_authority=True)
    return Answer(data=_render_signed(pki.sign_intermediate(act, mount, order, csr, ref=ref), order, None))


def _sign_self_issued(act: Act, *, mount: str, request: VaultRequest, ref: str = DEFAULT_REF) -> Answer:
    order = read_members(request.body, AuthorityOrder)
    return Answer(data=_render_signed(pki.sign_self_issued(act, mount, order.certificate, ref=ref), order, None))


def _list_issuers(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    if not (every := store.pki.issuers(act.tx, mount)):
        raise NothingStored("there is no issuer")
    default = (
        pki_issuers.find_issuer(act.tx, mount, DEFAULT_REF).issuer_id if any(one.certificate for one in every) else ""
    )
    shown = {
        one.issuer_id: {
            "is_default": one.issuer_id == default,
            "issuer_name": one.name,
            "key_id": one.issuer_id if one.has_key else "",
            "serial_number": _serial_of(one),
        }
        for one in every
        if one.certificate
    }
    return Answer(data={"keys": list(shown), "key_info": shown})


def _read_issuer(act: Act, *, mount: str, request: VaultRequest, ref: str) -> Answer:
    return Answer(data=_render_issuer(act, pki_issuers.find_issuer(act.tx, mount, ref)))


def _update_issuer(act: Act, *, mount: str, request: VaultRequest, ref: str) -> Answer:
    body = request.body
    usages = set(_USAGE.split(","))
    if body.get("usage") and usages != {one.strip() for one in str(body["usage"]).split(",")}:
        raise Invalid("the usage of an issuer cannot be changed", hint="to end its signing, write issuer/REF/revoke")
    if body.get("leaf_not_after_behavior") not in (None, "", "err") or body.get("manual_chain"):
        raise Invalid("only `issuer_name` of an issuer can be changed")
    name = body.get("issuer_name")
    if name is not None and not isinstance(name, str):
        raise Malformed("`issuer_name` must be a text")
    return Answer(data=_render_issuer(act, pki_issuers.rename_issuer(act, mount, ref, name)))


def _revoke_issuer(act: Act, *, mount: str, request: VaultRequest, ref: str) -> Answer:
    return Answer(data=_render_issuer(act, pki_issuers.revoke_issuer(act, mount, ref)))


def _delete_issuers(act: Act, *, mount: str, request: VaultRequest, ref: str | None = None) -> Answer:
    pki_issuers.delete_issuers(act, mount, ref)
    return EMPTY


def _read_default(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    return Answer(data={"default": pki_issuers.find_issuer(act.tx, mount, DEFAULT_REF).issuer_id})


def _choose_default(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    return Answer(data={"default": pki_issuers.choose_default(act, mount, str(request.body.get("default"))).issuer_id})


def _render_issuer(act: Act, issuer: PkiIssuer) -> dict[str, object]:
    settings = store.pki.settings(act.tx, issuer.mount)
    at = issuer.revoked_at
    return {
        **_render_ids(issuer),
        **render_members(act.tx, issuer),
        "crl_distribution_points": settings.crl_distribution_points,
        "issuing_certificates": settings.issuing_certificates,
        "leaf_not_after_behavior": "err",
        "manual_chain": None,
        "ocsp_servers": settings.ocsp_servers,
        "revoked": at is not None,
        "usage": _USAGE,
        **({} if at is None else {"revocation_time": at // SECOND, "revocation_time_rfc3339": render_time(at)}),
    }


def _render_ids(issuer: PkiIssuer) -> dict[str, object]:
    key_id = issuer.issuer_id if issuer.has_key else ""
    return {"issuer_id": issuer.issuer_id, "issuer_name": issuer.name, "key_id": key_id, "key_name": ""}


def _serial_of(issuer: PkiIssuer) -> str:
    return render_serial(serial_text(issuer.x509.serial_number))


# --- settings


def _read_urls(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    settings = store.pki.settings(act.tx, mount)
    return Answer(data={**{name: getattr(settings, name) for name in _URLS}, "enable_templating": False})


def _write_urls(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    changed = read_members(request.body, PkiSettings)
    if request.body.get("enable_templating") not in (None, False, "false"):
        raise Invalid("templates in URLs are not supported")
    for name in _URLS:
        for url in getattr(changed, name):
            make_name(NameKind.URI, url)
    _change_settings(act, mount, changed, request, _URLS)
    return _read_urls(act, mount=mount, request=request)


def _read_crl(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    expiry = render_duration(store.pki.settings(act.tx, mount).expiry * SECOND)
    return Answer(data={"auto_rebuild": True, "disable": False, "enable_delta": False, "expiry": expiry})


def _write_crl(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    changed = read_members(request.body, PkiSettings)
    if request.body.get("disable") not in (None, False, "false"):
        raise Invalid("revocation lists cannot be disabled")
    if not SHORTEST_CRL_S <= changed.expiry <= LONGEST_CRL_S:
        raise Invalid(f"`expiry` must be {SHORTEST_CRL_S} to {LONGEST_CRL_S} seconds")
    _change_settings(act, mount, changed, request, ("expiry",))
    return _read_crl(act, mount=mount, request=request)


def _change_settings(act: Act, mount: str, changed: PkiSettings, request: VaultRequest, names: tuple[str, ...]) -> None:
    changes = {name: getattr(changed, name) for name in names if request.body.get(name) is not None}
    store.pki.put_settings(act.tx, mount, replace(store.pki.settings(act.tx, mount), **changes))


def _rotate_crl(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    """Return success without a change, because each request for a revocation list gets the present state."""
    return Answer(data={"success": True})


# --- roles


def _list_roles(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    if not (names := store.pki.roles(act.tx, mount, limit=MAX_ROLES)):
        raise NothingStored("there is no role")
    return Answer(data={"keys": names})


def _read_role(act: Act, *, mount: str, request: VaultRequest, name: str) -> Answer:
    return Answer(data=_render_role(_find_role(act, mount, name)))


def _write_role(act: Act, *, mount: str, request: VaultRequest, name: str) -> Answer:
    """Store a role. A PATCH changes only the members that it has."""
    role = read_members(request.body, PkiRole)
    if request.method is VaultMethod.PATCH:
        stated = [field for field in PkiRole.__struct_fields__ if request.body.get(field) is not None]
        role = replace(_find_role(act, mount, name), **{field: getattr(role, field) for field in stated})
    role = check_role(role)
    pki.put_role(act, mount, check_role_name(name), role)
    return Answer(data=_render_role(role))


def _find_role(act: Act, mount: str, name: str) -> PkiRole:
    if (role := store.pki.role(act.tx, mount, name)) is None:
        raise NothingStored("there is no such role")
    return role


def _render_role(role: PkiRole) -> dict[str, object]:
    return {**msgspec.to_builtins(role), "no_store": False}


def _delete_role(act: Act, *, mount: str, request: VaultRequest, name: str) -> Answer:
    store.pki.delete_role(act.tx, mount, name)
    return EMPTY


# --- certificates


def _issue(act: Act, *, mount: str, request: VaultRequest, name: str, ref: str | None = None) -> Answer:
    role, order = pki.find_role(act, mount, name), _read_order(request)
    check_common_name(role, order.common_name)
    names = read_names(order, order.common_name)
    check_names(role, names)
    key = take_key(act, choose_key_type(role.key_type, role.key_bits), request.private_key)
    signed = pki.sign_certificate(
        act,
        mount,
        role,
        ref=ref or role.issuer_ref,
        subject=build_subject(order.common_name, role),
        names=names,
        public_key=encode_public_key(key.public_key()),
        ttl=order.ttl,
        lease=f"{mount}/issue/{name}" if role.generate_lease else "",
    )
    return _answer_signed(act, signed, order, key)


def _sign(act: Act, *, mount: str, request: VaultRequest, name: str, ref: str | None = None) -> Answer:
    role, order = pki.find_role(act, mount, name), _read_order(request)
    csr = parse_csr(read_csr(order.csr))
    check_key_type(role, csr.key_type)
    common_name = (read_common_name(csr.subject) if role.use_csr_common_name else "") or order.common_name
    check_common_name(role, common_name)
    stated = replace(order, alt_names=(), ip_sans=(), uri_sans=()) if role.use_csr_sans else order
    names = read_names(stated, common_name)
    names = check_count(tuple(dict.fromkeys((*names, *csr.names)))) if role.use_csr_sans else names
    check_names(role, names)
    signed = pki.sign_certificate(
        act,
        mount,
        role,
        ref=ref or role.issuer_ref,
        subject=build_subject(common_name, role),
        names=names,
        public_key=csr.public_key,
        ttl=order.ttl,
        lease=f"{mount}/sign/{name}" if role.generate_lease else "",
    )
    return _answer_signed(act, signed, order, None)


def _sign_verbatim(
    act: Act, *, mount: str, request: VaultRequest, name: str | None = None, ref: str | None = None
) -> Answer:
    """Sign a certificate request with the names and the subject that the request states. If `name` is given, the times
    and the issuer of this role apply.
    """
    order = _read_order(request)
    role = PkiRole() if name is None else pki.find_role(act, mount, name)
    role = replace(role, server_flag=False, client_flag=False, code_signing_flag=False, email_protection_flag=False)
    role = replace(role, key_usage=PkiRole().key_usage, ext_key_usage=())
    usages = {one: getattr(order, one) for one in ("key_usage", "ext_key_usage") if getattr(order, one) is not None}
    role = replace(role, **usages)
    csr = parse_csr(read_csr(order.csr))
    signed = pki.sign_certificate(
        act,
        mount,
        role,
        ref=ref or role.issuer_ref,
        subject=rebuild_subject(csr.subject),
        names=csr.names,
        public_key=csr.public_key,
        ttl=order.ttl,
        lease=f"{mount}/sign-verbatim/{name or ''}".removesuffix("/") if role.generate_lease else "",
    )
    return _answer_signed(act, signed, order, None)


def _read_order(request: VaultRequest) -> CertificateOrder:
    order = read_members(request.body, CertificateOrder)
    _check_format(order)
    return order


def _read_authority(request: VaultRequest) -> AuthorityOrder:
    order = read_members(request.body, AuthorityOrder)
    _check_format(order)
    if any(request.body.get(one) for one in ("alt_names", "ip_sans", "uri_sans")):
        raise Invalid("the certificate of an authority has no alternative names")
    return order


def _check_format(order: CertificateOrder | AuthorityOrder) -> None:
    if order.format not in FORMATS:
        raise Invalid(f"`format` must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if order.private_key_format not in ("der", "pem", "pkcs8"):
        raise Invalid("`private_key_format` must be der, pem or pkcs8")


def _answer_signed(
    act: Act, signed: pki_issuers.SignedCertificate, order: CertificateOrder, key: PrivateKey | None
) -> Answer:
    certificate, data = signed.certificate, _render_signed(signed, order, key)
    if certificate.lease is None:
        return Answer(data=data)
    return Answer(data=data, lease_id=certificate.lease, lease_s=(certificate.not_after - act.now) // SECOND)


def _render_signed(
    signed: pki_issuers.SignedCertificate, order: CertificateOrder | AuthorityOrder, key: PrivateKey | None
) -> dict[str, object]:
    certificate, chain = signed.certificate, signed.chain
    shown = _render_key(key, order)
    form = _encode_der if order.format == "der" else DER_cert_to_PEM_cert
    data: dict[str, object] = {
        "ca_chain": [form(one) for one in chain],
        "certificate": form(certificate.der),
        "expiration": certificate.not_after // SECOND,
        "issuing_ca": form(chain[0]),
        "serial_number": render_serial(certificate.serial),
        **shown,
    }
    if order.format == "pem_bundle":
        above = [] if certificate.agent is None else map(DER_cert_to_PEM_cert, chain)
        parts = [str(shown.get("private_key", "")), DER_cert_to_PEM_cert(certificate.der), *above]
        data["certificate"] = "".join(part if part.endswith("\n") else f"{part}\n" for part in parts if part)
    return data


def _encode_der(der: bytes) -> str:
    return b64encode(der).decode()


def _render_key(key: PrivateKey | None, order: CertificateOrder | AuthorityOrder) -> dict[str, object]:
    """Return the members of the response that contain a private key; no members for None."""
    if key is None:
        return {}
    is_traditional = order.private_key_format != "pkcs8" and not isinstance(key, ed25519.Ed25519PrivateKey)
    form = PrivateFormat.TraditionalOpenSSL if is_traditional else PrivateFormat.PKCS8
    if order.format == "der":
        shown = b64encode(key.private_bytes(Encoding.DER, form, NoEncryption())).decode()
    else:
        shown = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
    kind = {"P": "ec", "RSA": "rsa", "Ed25519": "ed25519"}[key_type_of(key.public_key()).partition("-")[0]]
    return {"private_key": shown, "private_key_type": kind}


def _list_certificates(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    if not (serials := store.pki.serials(act.tx, mount, limit=pki.MAX_LISTED)):
        raise NothingStored("there is no certificate")
    return Answer(data={"keys": [render_serial(one) for one in serials]})


def _read_certificate(act: Act, *, mount: str, request: VaultRequest, serial: str) -> Answer:
    if serial in ("ca", "ca_chain"):
        chain = pki_issuers.chain_of(act.tx, pki_issuers.find_issuer(act.tx, mount, DEFAULT_REF))
        chosen = chain[:1] if serial == "ca" else chain
        return Answer(data={"certificate": "".join(map(DER_cert_to_PEM_cert, chosen)), "revocation_time": 0})
    certificate = store.pki.get(act.tx, mount, parse_serial(serial.replace("-", ":")))
    if certificate is None:
        raise NothingStored("there is no such certificate")
    at = certificate.revoked_at
    return Answer(
        data={
            "certificate": DER_cert_to_PEM_cert(certificate.der),
            "issuer_id": certificate.issuer,
            "revocation_time": 0 if at is None else at // SECOND,
            "revocation_time_rfc3339": render_time(at),
        }
    )


def _revoke(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    serial, text = request.body.get("serial_number"), request.body.get("certificate")
    if isinstance(serial, str) == isinstance(text, str):
        raise Invalid(
            "Must provide either a certificate or a serial to revoke",
            hint="send exactly one of `certificate` and `serial_number`",
        )
    if isinstance(text, str):
        [certificate, *_] = load_pem_certificates(text)
        serial = serial_text(certificate.serial_number)
    revoked = pki.revoke_certificate(act, mount, parse_serial(str(serial).replace("-", ":")))
    at = revoked.revoked_at or act.now
    return Answer(
        data={"revocation_time": at // SECOND, "revocation_time_rfc3339": render_time(at), "state": "revoked"}
    )


def _tidy(act: Act, *, mount: str, request: VaultRequest) -> Answer:
    deleted = store.pki.tidy(act.tx, mount, before=act.now - store.pki.KEPT)
    registry.fill_entry(act, object=f"{mount}/tidy", deleted=deleted)
    return EMPTY


_READ, _LIST, _WRITE, _DELETE = VaultMethod.READ, VaultMethod.LIST, VaultMethod.WRITE, VaultMethod.DELETE
_BELOW = r"(?:issuer/(?P<ref>[^/]+)/)?"
_USAGE = "crl-signing,issuing-certificates,ocsp-signing,read-only"
_URLS = ("issuing_certificates", "crl_distribution_points", "ocsp_servers")
_KIND = "(?P<kind>internal|exported)"
_REF, _NAME = "(?P<ref>[^/]+)", "(?P<name>[^/]+)"
_OPERATIONS: tuple[tuple[str, VaultMethod, SecretAction, str, Callable[..., Answer]], ...] = (
    (f"root/generate/{_KIND}", _WRITE, SecretAction.WRITE, "generate-root", _generate_root),
    (f"issuers/generate/root/{_KIND}", _WRITE, SecretAction.WRITE, "generate-root", _generate_root),
    (f"intermediate/generate/{_KIND}", _WRITE, SecretAction.WRITE, "generate-intermediate", _generate_intermediate),
    (
        f"issuers/generate/intermediate/{_KIND}",
        _WRITE,
        SecretAction.WRITE,
        "generate-intermediate",
        _generate_intermediate,
    ),
    ("intermediate/set-signed", _WRITE, SecretAction.WRITE, "set-signed", _set_signed),
    ("config/ca|issuers/import/(?:cert|bundle)", _WRITE, SecretAction.WRITE, "import", _import_bundle),
    (f"(?:root|issuer/{_REF})/sign-intermediate", _WRITE, SecretAction.WRITE, "sign-intermediate", _sign_intermediate),
    (f"(?:root|issuer/{_REF})/sign-self-issued", _WRITE, SecretAction.WRITE, "sign-self-issued", _sign_self_issued),
    ("root", _DELETE, SecretAction.DELETE, "delete-issuers", _delete_issuers),
    ("issuers", _LIST, SecretAction.LIST, "list", _list_issuers),
    (f"issuer/{_REF}", _READ, SecretAction.READ, "read-issuer", _read_issuer),
    (f"issuer/{_REF}", _WRITE, SecretAction.WRITE, "update-issuer", _update_issuer),
    (f"issuer/{_REF}", VaultMethod.PATCH, SecretAction.WRITE, "update-issuer", _update_issuer),
    (f"issuer/{_REF}", _DELETE, SecretAction.DELETE, "delete-issuers", _delete_issuers),
    (f"issuer/{_REF}/revoke", _WRITE, SecretAction.DELETE, "revoke-issuer", _revoke_issuer),
    ("config/issuers", _READ, SecretAction.READ, "read-config", _read_default),
    ("config/issuers", _WRITE, SecretAction.WRITE, "config", _choose_default),
    ("config/urls", _READ, SecretAction.READ, "read-config", _read_urls),
    ("config/urls", _WRITE, SecretAction.WRITE, "config", _write_urls),
    ("config/crl", _READ, SecretAction.READ, "read-config", _read_crl),
    ("config/crl", _WRITE, SecretAction.WRITE, "config", _write_crl),
    ("crl/rotate", _READ, SecretAction.READ, "rotate-crl", _rotate_crl),
    ("crl/rotate", _WRITE, SecretAction.READ, "rotate-crl", _rotate_crl),
    ("roles", _LIST, SecretAction.LIST, "list", _list_roles),
    (f"roles/{_NAME}", _READ, SecretAction.READ, "read-role", _read_role),
    (f"roles/{_NAME}", _WRITE, SecretAction.WRITE, "write-role", _write_role),
    (f"roles/{_NAME}", VaultMethod.PATCH, SecretAction.WRITE, "write-role", _write_role),
    (f"roles/{_NAME}", _DELETE, SecretAction.DELETE, "delete-role", _delete_role),
    (f"{_BELOW}issue/{_NAME}", _WRITE, SecretAction.USE, "issue", _issue),
    (f"{_BELOW}sign/{_NAME}", _WRITE, SecretAction.USE, "sign", _sign),
    (f"{_BELOW}sign-verbatim(?:/{_NAME})?", _WRITE, SecretAction.USE, "sign-verbatim", _sign_verbatim),
    ("certs", _LIST, SecretAction.LIST, "list", _list_certificates),
    ("cert/(?P<serial>[^/]+)", _READ, SecretAction.READ, "read", _read_certificate),
    ("revoke", _WRITE, SecretAction.DELETE, "revoke", _revoke),
    ("tidy", _WRITE, SecretAction.DELETE, "tidy", _tidy),
)
"""Path, method, action in policies, name, and function of each operation."""
