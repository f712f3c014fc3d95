"""Encryption as a service, by keys in the server (HashiCorp Vault, "Transit secrets engine (API)").

keys                            LIST
keys/NAME                       GET, POST, DELETE;  keys/NAME/rotate, config, trim   POST
wrapping_key                    GET;  keys/NAME/import, import_version   POST
export/TYPE/NAME[/VERSION], backup/NAME                GET;  restore[/NAME]   POST
encrypt, decrypt, rewrap, sign, verify, hmac /NAME     POST; also a batch (`batch_input`)
datakey/plaintext/NAME, datakey/wrapped/NAME           POST
random[/SOURCE][/BYTES], hash[/ALGORITHM]                       POST; also at sys/tools/
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from hmac import compare_digest
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes

from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiaryd.certs.model.keys import PrivateKey
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import transit, transit_import
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model import transit_keys, transit_signature
from ostiaryd.secrets.model.request import (
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    convert_members,
    is_set,
    parse_duration,
    render_time,
    split_path,
)
from ostiaryd.secrets.model.transit_import import parse_wrapped
from ostiaryd.secrets.model.transit_keys import KeyBackup, TransitKey

TYPE = "transit"
DESCRIPTION = "encryption with keys that stay in the server"
OPTIONS: dict[str, str] | None = None
MAX_BATCH = 250
MAX_CURVE_BATCH = 25
"""Maximum number of items in a batch with a key on a NIST curve; P-384 takes more than a millisecond for an item."""
MAX_RSA_BATCH = 5
"""Maximum number of items in a batch with an RSA key; one with 4,096 bits takes five milliseconds for an item."""
MAX_RANDOM = 1 << 15
TOOLS = "sys/tools/"
_RANDOM_SOURCES = ("platform", "seal", "all")
"""Names of random sources in the Vault API; each name means the random generator of the operating system."""
DATA_KEY_BITS = (128, 256, 512)
_UNSUPPORTED = ("nonce", "convergent_encryption", "derived")
"""members that are refused in the use and in the configuration of a key"""


class _NewKey(msgspec.Struct):
    type: str = "aes256-gcm96"
    exportable: bool = False
    allow_plaintext_backup: bool = False
    auto_rotate_period: int | str = 0
    derived: bool = False
    convergent_encryption: bool = False
    key_size: int = 0


class _Import(_NewKey):
    ciphertext: str = ""
    hash_function: str = "SHA256"
    allow_rotation: bool = False


class _Config(msgspec.Struct):
    min_decryption_version: int | None = None
    min_encryption_version: int | None = None
    deletion_allowed: bool | None = None
    exportable: bool | None = None
    allow_plaintext_backup: bool | None = None
    auto_rotate_period: int | str | None = None


class _Trim(msgspec.Struct):
    min_available_version: int


class _Restore(msgspec.Struct):
    backup: str = ""
    force: bool = False


class _Item(msgspec.Struct):
    """The use of a key: the members of a single request, or of one item of a batch."""

    plaintext: str | None = None
    ciphertext: str | None = None
    input: str | None = None
    signature: str = ""
    hmac: str = ""
    associated_data: str = ""
    context: str = ""
    key_version: int = 0
    hash_algorithm: str = ""
    algorithm: str = ""
    prehashed: bool = False
    marshaling_algorithm: str = "asn1"
    signature_algorithm: str = ""
    salt_length: int | str = "auto"
    reference: str = ""
    bits: int = 256


class _Random(msgspec.Struct):
    bytes: int = 32
    format: str = "base64"


class _Hash(msgspec.Struct):
    input: str
    algorithm: str = "sha2-256"
    format: str = "hex"


class OpenKey(msgspec.Struct, frozen=True):
    """A transit key that a request uses. `open`: the function that decrypts the material of a version, by its number.
    `random`: the source of random bytes.
    """

    key: TransitKey
    open: Callable[[int], bytes]
    random: Callable[[int], bytes]


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request to a transit mount. Raises NothingStored for an unknown path,
    UnsupportedOperation for a method that the path does not support; Malformed for members of wrong types, Invalid for
    wrong names and values.
    """
    if request.path.endswith("/") and request.method is not VaultMethod.LIST:
        raise NothingStored("no handler for route", code="no_route")
    kind, rest = split_path(request.path)
    if kind == "keys":
        return _find_key_operation(mount, rest, request)
    if kind == "wrapping_key" and not rest and request.method is VaultMethod.READ:
        run = partial(_read_wrapping_key, mount=mount, generated=request.private_key)
        return Operation(SecretAction.READ, kind, kind, run)
    if kind in ("export", "backup"):
        return _find_export_operation(mount, kind, rest, request)
    if request.method is not VaultMethod.WRITE:
        raise UnsupportedOperation("unsupported operation")
    _check_supported(request.body)
    if kind == "restore":
        return _find_restore_operation(mount, rest, request)
    if kind in _TOOLS:
        run = partial(_TOOLS[kind], request=request, parameter=rest)
        return Operation(SecretAction.USE, "", kind, run)
    if kind == "datakey":
        variant, rest = split_path(rest)
        if variant not in ("plaintext", "wrapped"):
            raise Invalid("the type of a data key must be `plaintext` or `wrapped`")
        use: Callable[[OpenKey, _Item], dict[str, object]] = partial(_make_data_key, is_shown=variant == "plaintext")
    elif kind in _USES:
        use = _USES[kind]
    elif kind in _HASHING:
        rest, algorithm = split_path(rest)
        use = partial(_HASHING[kind], in_path=algorithm)
    else:
        raise NothingStored("no handler for route", code="no_route")
    name = transit_keys.check_name(rest)
    stored = transit_keys.stored_name(mount, name)
    run = partial(_use, name=stored, use=use, body=request.body)
    return Operation(SecretAction.USE, name, kind, run)


def find_tool(request: VaultRequest) -> Operation:
    """Return the operation of a request below `sys/tools/`. Raises NothingStored for an unknown tool,
    UnsupportedOperation for another method than a write. The operation checks the body when it runs.
    """
    kind, parameter = split_path(request.path.removeprefix(TOOLS))
    if kind not in _TOOLS:
        raise NothingStored("unsupported path", hint=f"use {' or '.join(_TOOLS)}", code="unsupported_path")
    if request.method is not VaultMethod.WRITE:
        raise UnsupportedOperation("unsupported operation")
    return Operation(
        SecretAction.USE, f"tools/{kind}", kind, partial(_TOOLS[kind], request=request, parameter=parameter)
    )


def _check_supported(body: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if name in body and is_set(body[name]):
            raise Invalid(f"`{name}` is not supported", hint=f"leave `{name}` out")


def _find_key_operation(mount: str, rest: str, request: VaultRequest) -> Operation:
    if request.method is VaultMethod.LIST and not rest:
        return Operation(
            SecretAction.LIST, "", "list", lambda act: Answer(data={"keys": transit.list_names(act, mount)})
        )
    if not rest:
        raise UnsupportedOperation("unsupported operation")
    name, change = split_path(rest)
    stored = transit_keys.stored_name(mount, transit_keys.check_name(name))
    match request.method, change:
        case VaultMethod.READ, "":
            return Operation(SecretAction.READ, name, "read", partial(_read_key, name=stored))
        case VaultMethod.WRITE, "":
            new = request.read_body(_NewKey)
            also = _decide_export(name, new.exportable or new.allow_plaintext_backup)
            return Operation(
                SecretAction.WRITE,
                name,
                "create",
                partial(_create, name=stored, body=new, generated=request.private_key),
                also=also,
            )
        case VaultMethod.DELETE, "":
            return Operation(SecretAction.DELETE, name, "delete", partial(_delete, name=stored))
        case VaultMethod.WRITE, "rotate":
            return Operation(
                SecretAction.WRITE, name, "rotate", partial(_rotate, name=stored, generated=request.private_key)
            )
        case VaultMethod.WRITE, "config":
            _check_supported(request.body)
            body = request.read_body(_Config)
            also = _decide_export(name, bool(body.exportable or body.allow_plaintext_backup))
            return Operation(SecretAction.WRITE, name, "config", partial(_configure, name=stored, body=body), also=also)
        case VaultMethod.WRITE, "trim":
            version = request.read_body(_Trim).min_available_version
            return Operation(SecretAction.DELETE, name, "trim", partial(_trim, name=stored, version=version))
        case VaultMethod.WRITE, "import" | "import_version":
            change_key = _import if change == "import" else _import_version
            run = partial(change_key, mount=mount, name=stored, body=request.read_body(_Import))
            return Operation(SecretAction.WRITE, name, change, run, also=_decide_export(name, True))
    raise UnsupportedOperation("unsupported operation")


def _decide_export(name: str, is_needed: bool) -> tuple[tuple[SecretAction, str], ...]:
    """Return the further decision, on the export of the key, that an import or a setting that permits exports needs;
    empty if `is_needed` is false.
    """
    return ((SecretAction.EXPORT, name),) if is_needed else ()


def _find_export_operation(mount: str, kind: str, rest: str, request: VaultRequest) -> Operation:
    if request.method is not VaultMethod.READ:
        raise UnsupportedOperation("unsupported operation")
    use, version = "", ""
    if kind == "export":
        use, rest = split_path(rest)
        rest, version = split_path(rest)
        if use not in (*transit_keys.EXPORTS, transit_keys.PUBLIC):
            uses = " ".join((*transit_keys.EXPORTS, transit_keys.PUBLIC))
            raise Invalid(f"invalid export type: {use[:64]!a}", hint=f"use {uses}")
    name = transit_keys.check_name(rest)
    stored = transit_keys.stored_name(mount, name)
    run = partial(_export, name=stored, use=use, version=version) if use else partial(_backup, name=stored)
    return Operation(SecretAction.READ if use == transit_keys.PUBLIC else SecretAction.EXPORT, name, kind, run)


def _find_restore_operation(mount: str, rest: str, request: VaultRequest) -> Operation:
    body = request.read_body(_Restore)
    backup = transit_keys.parse_backup(body.backup, most=transit.MAX_KEY_VERSIONS) if body.backup else None
    if backup is None and not rest:
        raise Invalid("missing `backup`")
    name = transit_keys.check_name(rest or ("" if backup is None else backup.key.name))
    run = partial(_restore, name=transit_keys.stored_name(mount, name), backup=backup, is_forced=body.force)
    deletion = ((SecretAction.DELETE, name),) if body.force else ()
    return Operation(SecretAction.WRITE, name, "restore", run, also=(*_decide_export(name, True), *deletion))


# --- keys


def _create(act: Act, *, name: str, body: _NewKey, generated: PrivateKey | None) -> Answer:
    if body.key_size not in (0, transit_keys.KEY_BYTES["hmac"] if body.type == "hmac" else 0):
        raise Invalid("`key_size` is only for keys of the type hmac, and must be 32", hint="leave `key_size` out")
    period = parse_duration(body.auto_rotate_period, field="auto_rotate_period") // SECOND
    options = {
        "is_exportable": body.exportable,
        "allows_backup": body.allow_plaintext_backup,
        "is_derived": body.derived,
        "is_convergent": body.convergent_encryption,
    }
    key = transit.create_key(act, name, body.type, auto_rotate_s=period, generated=generated, **options)
    return Answer(data=_render_key(act, key))


def _read_wrapping_key(act: Act, *, mount: str, generated: PrivateKey | None) -> Answer:
    return Answer(data={"public_key": transit_import.read_wrapping_key(act, mount, generated)})


def _import(act: Act, *, mount: str, name: str, body: _Import) -> Answer:
    content, method = parse_wrapped(body.ciphertext, body.hash_function)
    key = TransitKey(
        name=name,
        kind=body.type,
        latest_version=1,
        min_decryption_version=1,
        min_encryption_version=0,
        deletion_allowed=False,
        created_at=act.now,
        is_exportable=body.exportable,
        allows_backup=body.allow_plaintext_backup,
        auto_rotate_s=parse_duration(body.auto_rotate_period, field="auto_rotate_period") // SECOND,
        is_derived=body.derived,
        is_convergent=body.convergent_encryption,
        is_imported=True,
        allows_rotation=body.allow_rotation,
    )
    if key.auto_rotate_s and not key.allows_rotation:
        raise Invalid("allow_rotation must be set to true if auto-rotation is enabled")
    transit_import.import_key(act, mount, key, content, method)
    return Answer(status=204)


def _import_version(act: Act, *, mount: str, name: str, body: _Import) -> Answer:
    content, method = parse_wrapped(body.ciphertext, body.hash_function)
    transit_import.import_version(act, mount, name, content, method)
    return Answer(status=204)


def _read_key(act: Act, *, name: str) -> Answer:
    if (key := store.transit.get(act.tx, name)) is None:
        raise NothingStored("there is no such key")
    return Answer(data=_render_key(act, key))


def _rotate(act: Act, *, name: str, generated: PrivateKey | None) -> Answer:
    return Answer(data=_render_key(act, transit.rotate_key(act, name, generated)))


def _configure(act: Act, *, name: str, body: _Config) -> Answer:
    period = body.auto_rotate_period
    key = transit.configure_key(
        act,
        name,
        min_decryption=body.min_decryption_version,
        min_encryption=body.min_encryption_version,
        deletion_allowed=body.deletion_allowed,
        is_exportable=body.exportable,
        allows_backup=body.allow_plaintext_backup,
        auto_rotate_s=None if period is None else parse_duration(period, field="auto_rotate_period") // SECOND,
    )
    return Answer(data=_render_key(act, key))


def _trim(act: Act, *, name: str, version: int) -> Answer:
    return Answer(data=_render_key(act, transit.trim_key(act, name, version)))


def _export(act: Act, *, name: str, use: str, version: str) -> Answer:
    key, texts = transit.export_key(act, name, use, version)
    shown = {str(one): text for one, text in texts.items()}
    return Answer(data={"keys": shown, "name": transit_keys.shown_name(name), "type": key.kind})


def _backup(act: Act, *, name: str) -> Answer:
    return Answer(data={"backup": transit.backup_key(act, name)})


def _restore(act: Act, *, name: str, backup: KeyBackup | None, is_forced: bool) -> Answer:
    if backup is None:
        raise Invalid("missing `backup`")
    transit.restore_key(act, name, backup, is_forced=is_forced)
    return Answer(status=204)


def _delete(act: Act, *, name: str) -> Answer:
    transit.delete_key(act, name)
    return Answer(status=204)


def _render_key(act: Act, key: TransitKey) -> dict[str, object]:
    is_signing = key.kind in transit_keys.SIGNING
    label = key.kind.replace("ecdsa-p", "P-")
    versions: dict[str, object] = {}
    for version, created in store.transit.versions(act.tx, key.name):
        if version < key.min_decryption_version:
            continue
        versions[str(version)] = created // SECOND
        if is_signing:
            public = transit_keys.render_public_key(key.kind, transit.open_material(act, key, version))
            versions[str(version)] = {"creation_time": render_time(created), "name": label, "public_key": public}
    derivation: dict[str, object] = {"kdf": "hkdf_sha256"} if key.is_derived else {}
    if key.is_convergent:
        derivation["convergent_encryption"] = True
    return {
        **derivation,
        "allow_plaintext_backup": key.allows_backup,
        "auto_rotate_period": key.auto_rotate_s,
        "deletion_allowed": key.deletion_allowed,
        "derived": key.is_derived,
        "exportable": key.is_exportable,
        "imported_key": key.is_imported,
        **({"imported_key_allow_rotation": key.allows_rotation} if key.is_imported else {}),
        "keys": versions,
        "latest_version": key.latest_version,
        "min_available_version": key.min_available_version,
        "min_decryption_version": key.min_decryption_version,
        "min_encryption_version": key.min_encryption_version,
        "name": transit_keys.shown_name(key.name),
        "supports_decryption": key.kind in transit_keys.ENCRYPTING,
        "supports_derivation": key.kind in transit_keys.AEAD,
        "supports_encryption": key.kind in transit_keys.ENCRYPTING,
        "supports_signing": is_signing,
        "type": key.kind,
    }


# --- uses


def _use(
    act: Act,
    *,
    name: str,
    use: Callable[[OpenKey, _Item], dict[str, object]],
    body: Mapping[str, Any],
) -> Answer:
    """Use a key for one item, or for each item of a batch in order. If an item of a batch fails, its result has the
    member `error`, and the status of the batch is 400.
    """
    key = transit.find_key(act, name)
    usable = OpenKey(key, partial(transit.open_material, act, key), act.tx.random)
    batch = body.get("batch_input")
    if batch is None:
        return Answer(data=use(usable, convert_members(body, _Item)))
    most = (
        MAX_RSA_BATCH
        if key.kind in transit_keys.RSA_BITS
        else MAX_CURVE_BATCH
        if key.kind in transit_keys.CURVES
        else MAX_BATCH
    )
    if not isinstance(batch, list) or not 0 < len(batch) <= most:
        raise Invalid(f"`batch_input` must be a list of 1 to {most} items for a key of the type {key.kind}")
    if act.entry.detail is not None:
        act.entry.detail["items"] = len(batch)
    shared = {member: value for member, value in body.items() if member != "batch_input"}
    results = [_use_item(use, usable, shared, item) for item in batch]
    return Answer(data={"batch_results": results}, status=400 if any("error" in one for one in results) else 200)


def _use_item(
    use: Callable[[OpenKey, _Item], dict[str, object]],
    usable: OpenKey,
    shared: Mapping[str, Any],
    value: object,
) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Malformed("an item of `batch_input` is not a JSON object")
    _check_supported(value)
    reference = {"reference": value["reference"]} if isinstance(value.get("reference"), str) else {}
    try:
        return use(usable, convert_members({**shared, **value}, _Item)) | reference
    except Refused as refusal:
        return {"error": refusal.message} | reference


def _required(text: str | None, field: str) -> bytes:
    if text is None:
        raise Invalid(f"missing `{field}`")
    return transit_keys.decode_base64(text, field=field)


def _encrypt(usable: OpenKey, item: _Item) -> dict[str, object]:
    return _seal(usable, item, _required(item.plaintext, "plaintext"))


def _open_for(usable: OpenKey, item: _Item, version: int) -> bytes:
    """Return the material of a version of the key for the context of an item. Raises Invalid if the key is derived and
    the item has no context, or the reverse.
    """
    key, material = usable.key, usable.open(version)
    if not (key.is_derived or item.context):
        return material
    return transit_keys.derive_material(key, material, transit_keys.decode_base64(item.context, field="context"))


def _seal(usable: OpenKey, item: _Item, plain: bytes) -> dict[str, object]:
    version = transit_keys.usable_version(usable.key, item.key_version)
    bound = transit_keys.decode_base64(item.associated_data, field="associated_data") if item.associated_data else b""
    material = _open_for(usable, item, version)
    if usable.key.is_convergent:
        nonce = transit_keys.convergent_nonce(material, plain, bound)
    else:
        nonce = usable.random(transit_keys.NONCE_BYTES)
    content = transit_keys.encrypt(usable.key.kind, material, plain, bound=bound, nonce=nonce)
    return {"ciphertext": transit_keys.render_text(version, content), "key_version": version}


def _open(usable: OpenKey, item: _Item) -> bytes:
    parsed = transit_keys.parse_text(item.ciphertext or "", of="ciphertext")
    transit_keys.check_readable(usable.key, parsed.version)
    bound = transit_keys.decode_base64(item.associated_data, field="associated_data")
    return transit_keys.decrypt(usable.key.kind, _open_for(usable, item, parsed.version), parsed.content, bound=bound)


def _decrypt(usable: OpenKey, item: _Item) -> dict[str, object]:
    return {"plaintext": base64.b64encode(_open(usable, item)).decode()}


def _rewrap(usable: OpenKey, item: _Item) -> dict[str, object]:
    return _seal(usable, item, _open(usable, item))


def _signature_form(item: _Item, *, in_path: str) -> transit_signature.SignatureForm:
    """Return the form of a signature that a request states. Raises Invalid for an unknown form."""
    if item.signature_algorithm not in ("", "pkcs1v15", "pss"):  # only used by RSA keys, as in Vault
        raise Invalid("unsupported `signature_algorithm`", hint="use pss or pkcs1v15")
    if item.marshaling_algorithm not in ("asn1", "jws"):
        raise Invalid("unsupported `marshaling_algorithm`", hint="use asn1 or jws")
    algorithm = _choose_hash(in_path, item)
    return transit_signature.SignatureForm(
        algorithm, item.prehashed, item.signature_algorithm or "pss", str(item.salt_length)
    )


def _choose_hash(in_path: str, item: _Item) -> str:
    """Return the name of the hash algorithm of a request: the one in its path goes before those in its body. Raises
    Invalid if the request has a context, which no signature or HMAC uses.
    """
    if item.context:
        raise Invalid("`context` is only for encryption and decryption", hint="leave `context` out")
    return in_path or item.hash_algorithm or item.algorithm or "sha2-256"


def _sign(usable: OpenKey, item: _Item, *, in_path: str) -> dict[str, object]:
    form, kind = _signature_form(item, in_path=in_path), usable.key.kind
    version = transit_keys.usable_version(usable.key, item.key_version)
    made = transit_signature.sign(kind, usable.open(version), _required(item.input, "input"), form)
    signature = transit_signature.render_signature(kind, version, made, is_jws=item.marshaling_algorithm == "jws")
    return {"signature": signature, "key_version": version}


def _verify(usable: OpenKey, item: _Item, *, in_path: str) -> dict[str, object]:
    if bool(item.signature) == bool(item.hmac):
        raise Invalid("exactly one of `signature` and `hmac` is required")
    data, kind = _required(item.input, "input"), usable.key.kind
    if item.hmac:
        parsed, algorithm = transit_keys.parse_text(item.hmac, of="hmac"), _choose_hash(in_path, item)
        transit_keys.check_readable(usable.key, parsed.version)
        material = usable.open(parsed.version)
        expected = transit_keys.make_hmac(material, data, algorithm=algorithm)
        return {"valid": compare_digest(expected, parsed.content)}
    form = _signature_form(item, in_path=in_path)
    parsed = transit_signature.parse_signature(kind, item.signature, is_jws=item.marshaling_algorithm == "jws")
    transit_keys.check_readable(usable.key, parsed.version)
    return {"valid": transit_signature.has_signature(kind, usable.open(parsed.version), data, parsed.content, form)}


def _hmac(usable: OpenKey, item: _Item, *, in_path: str) -> dict[str, object]:
    version = transit_keys.usable_version(usable.key, item.key_version)
    data = _required(item.input, "input")
    made = transit_keys.make_hmac(usable.open(version), data, algorithm=_choose_hash(in_path, item))
    return {"hmac": transit_keys.render_text(version, made)}


def _make_data_key(usable: OpenKey, item: _Item, *, is_shown: bool) -> dict[str, object]:
    if item.bits not in DATA_KEY_BITS:
        raise Invalid("`bits` must be 128, 256 or 512")
    plain = usable.random(item.bits // 8)
    sealed = _seal(usable, item, plain)
    return {"plaintext": base64.b64encode(plain).decode(), **sealed} if is_shown else sealed


_USES: dict[str, Callable[[OpenKey, _Item], dict[str, object]]] = {
    "encrypt": _encrypt,
    "decrypt": _decrypt,
    "rewrap": _rewrap,
}
_HASHING: dict[str, Callable[..., dict[str, object]]] = {"sign": _sign, "verify": _verify, "hmac": _hmac}
"""Operations whose path may end with the name of a hash algorithm (`in_path`), as in `sign/NAME/sha2-256`."""


# --- without a key


def _make_random(act: Act, *, request: VaultRequest, parameter: str) -> Answer:
    body = request.read_body(_Random)
    source, _, text = parameter.rpartition("/")
    if source not in ("", *_RANDOM_SOURCES):
        raise Invalid("the source of random bytes is unknown", hint=f"use one of {', '.join(_RANDOM_SOURCES)}")
    if text in _RANDOM_SOURCES and not source:
        text = ""
    if text and not (text.isascii() and text.isdecimal() and len(text) < 9):
        raise Invalid("`bytes` is not a number")
    count = int(text) if text else body.bytes
    if not 1 <= count <= MAX_RANDOM:
        raise Invalid(f"`bytes` must be 1 to {MAX_RANDOM}")
    return Answer(data={"random_bytes": _render_bytes(act.tx.random(count), body.format)})


def _make_hash(act: Act, *, request: VaultRequest, parameter: str) -> Answer:
    body = request.read_body(_Hash)
    digest = hashes.Hash(transit_keys.hash_of(parameter or body.algorithm))
    digest.update(transit_keys.decode_base64(body.input, field="input"))
    return Answer(data={"sum": _render_bytes(digest.finalize(), body.format)})


_TOOLS: dict[str, Callable[..., Answer]] = {"random": _make_random, "hash": _make_hash}


def _render_bytes(content: bytes, form: str) -> str:
    if form not in ("hex", "base64"):
        raise Invalid("`format` must be hex or base64")
    return content.hex() if form == "hex" else base64.b64encode(content).decode()
