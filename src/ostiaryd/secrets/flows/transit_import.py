"""The import of transit keys: the wrapping key of a mount, new keys, and new versions of imported keys."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes

from ostiary.protocol.errors import Invalid
from ostiaryd.certs.model.keys import PrivateKey
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import transit
from ostiaryd.secrets.model.transit_import import WRAPPING_KIND, unwrap_material, wrapping_name
from ostiaryd.secrets.model.transit_keys import TransitKey, object_of, render_public_key


def read_wrapping_key(act: Act, mount: str, generated: PrivateKey | None) -> str:
    """Return the public part, in PEM, of a mount's wrapping key, with which clients wrap the keys that they import. The
    first request creates the wrapping key. `generated`: the RSA key that the server generated before the transaction,
    or None. Raises KeyNeeded if the wrapping key must be generated first.
    """
    name = wrapping_name(mount)
    key = store.transit.get(act.tx, name) or transit.create_key(act, name, WRAPPING_KIND, generated=generated)
    return render_public_key(key.kind, transit.open_material(act, key, key.latest_version))


def import_key(act: Act, mount: str, new: TransitKey, content: bytes, method: hashes.HashAlgorithm) -> TransitKey:
    """Store the key `new` with the material that is wrapped in `content`, and return the key. Raises Invalid if a key
    of this name exists, if the settings of `new` are not valid, or if `content` is not wrapped for the wrapping key of
    the mount or has no key of the type of `new`.
    """
    registry.fill_entry(act, object=object_of(new.name), type=new.kind[:32])
    if store.transit.get(act.tx, new.name) is not None:
        raise Invalid(
            "the import path cannot be used with an existing key", hint="use import_version for an imported key"
        )
    transit.check_new(act, new)
    return transit.add_version(act, new, _unwrap(act, mount, new.kind, content, method))


def import_version(act: Act, mount: str, name: str, content: bytes, method: hashes.HashAlgorithm) -> TransitKey:
    """Add the material that is wrapped in `content` to an imported key as its latest version, and return the key.
    Raises Invalid for a key that was not imported, or if `content` is not wrapped for the wrapping key of the mount or
    has no key of the same type.
    """
    key = transit.find_key(act, name)
    if not key.is_imported:
        raise Invalid("the import_version endpoint can only be used with an imported key", hint="rotate the key")
    return transit.add_version(act, transit.next_version(key), _unwrap(act, mount, key.kind, content, method))


def _unwrap(act: Act, mount: str, kind: str, content: bytes, method: hashes.HashAlgorithm) -> bytes:
    wrapping = store.transit.get(act.tx, wrapping_name(mount))
    if wrapping is None:
        raise Invalid("the mount has no wrapping key", hint="read `wrapping_key`, and wrap the key for it")
    opened = transit.open_material(act, wrapping, wrapping.latest_version)
    return unwrap_material(kind, opened, content, method)
