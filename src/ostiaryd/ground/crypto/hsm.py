"""Private keys in a hardware security module (HSM), by PKCS #11: keys are generated and used in the HSM, and cannot be
read from it.

A key is identified by its `CKA_ID` in hexadecimal digits. The builders of `cryptography` accept the key objects of this
module like keys in memory. All threads share one session, for one operation at a time. After a failure, the HSM is
opened again.

A thread of its own carries out the operations, because a call of a PKCS #11 library may never return. A caller waits
for a bounded time, and while an operation takes longer than that, further callers are refused at once.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ostiary.protocol.errors import Conflict, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from pkcs11 import Mechanism, ObjectClass, PublicKey, Session

log = logging.getLogger("ostiary")

T = TypeVar("T")
_Job = tuple["Future[Any]", Callable[[], Any]]
LABEL = "ostiary"
"""Label of all keys that the server generates in an HSM."""
ID_BITS = 128
ANSWER_S = 2.0
"""Time for which a caller waits for an operation of the HSM, in seconds. An act waits too, and with it all other acts.
"""
GENERATION_S = 120.0
"""Time for which a caller outside an act waits for a new key, in seconds: an HSM makes an RSA key in up to a minute."""
AGAIN_S = 1.0
"""Time after a failure of the HSM during which no operation is tried, in seconds; longer if the failed operation took
longer.
"""
_CURVES = {"P-256": "secp256r1", "P-384": "secp384r1", "Ed25519": "1.3.101.112"}
MAX_ED25519_BYTES = 35
"""Maximum length of the point of an Ed25519 key (`CKA_EC_POINT`): 32 bytes raw, 34 as an OCTET STRING, 35 as a BIT
STRING.
"""
_RSA_HASHES = {"sha256": "SHA256_RSA_PKCS", "sha384": "SHA384_RSA_PKCS", "sha512": "SHA512_RSA_PKCS"}


class Hsm:
    """A token of an HSM, used through a PKCS #11 library. `module` is the path of the library; `pin_file` is the file
    with the PIN of the user. An operation that opens a session (the first one, and the first one after a failure)
    raises Conflict if other users can read that file.
    """

    def __init__(self, module: str, token: str, pin_file: Path) -> None:
        self.token = token
        self._module, self._pin_file = module, pin_file
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._worker: threading.Thread | None = None
        self._running: Future[Any] | None = None
        self._late: Future[Any] | None = None
        self._session: Session | None = None
        self._keys, self._private = dict[str, HsmKey](), dict[str, Any]()
        self._refused_pin = ""
        self._away_until = 0.0

    def generate(self, key_type: str, *, within_s: float = GENERATION_S) -> HsmKey:
        """Generate a key of a type such as `P-256` that cannot leave the HSM, and return it. Raises Invalid for an
        unknown type; Unavailable if the HSM does not answer within `within_s` seconds (a key that the HSM generates
        later is deleted); Conflict if the HSM would allow the private key to be read.
        """
        made: list[str] = []

        def generate(session: Session) -> HsmKey:
            undo(session)  # a first attempt, in a session that failed, may have left a key
            id = bytes(session.generate_random(ID_BITS))
            made.append(id.hex())
            return _wrap(self, id.hex(), _generate(session, key_type, id))

        def undo(session: Session) -> None:
            for key_id in made:
                self._destroy(session, key_id)

        return self._run(generate, within_s=within_s, undo=undo)

    def find(self, key_id: str) -> HsmKey:
        """Return the key with this id. Raises NotFound if the token has no such key, or more than one; Unavailable if
        the HSM does not answer, or if the key has a type that the server does not use.
        """
        from pkcs11 import ObjectClass

        if key_id not in self._keys:
            key = self._run(lambda session: _wrap(self, key_id, _find(session, ObjectClass.PUBLIC_KEY, key_id)))
            self._keys[key_id] = key
        return self._keys[key_id]

    def destroy(self, key_id: str) -> None:
        """Delete the key with this id. Do nothing if there is none. Raises Unavailable if the HSM does not answer."""
        self._run(partial(self._destroy, key_id=key_id))

    def _destroy(self, session: Session, key_id: str) -> None:
        self._keys.pop(key_id, None)
        self._private.pop(key_id, None)
        for one in session.get_objects(_attributes_of_key(key_id)):
            one.destroy()

    def check(self) -> None:
        """Check that the HSM responds. Raises Unavailable otherwise."""
        self._run(lambda session: session.generate_random(ID_BITS))

    def sign(self, key_id: str, text: bytes, mechanism: Mechanism) -> bytes:
        """Return the signature of `text` by a key, in the raw form of PKCS #11. Raises NotFound if the HSM does not
        have the key, Unavailable if the HSM fails.
        """
        from pkcs11 import ObjectClass

        def sign(session: Session) -> bytes:
            if (key := self._private.get(key_id)) is None:
                key = self._private[key_id] = _find(session, ObjectClass.PRIVATE_KEY, key_id)
            return bytes(key.sign(text, mechanism=mechanism))

        return self._run(sign)

    def close(self) -> None:
        """Close the session with the HSM. If an operation still runs after `ANSWER_S`, its thread is left behind."""
        with self._lock:
            worker, jobs, self._worker, self._jobs = self._worker, self._jobs, None, None
        if worker is not None and jobs is not None:
            jobs.put(None)
            worker.join(ANSWER_S)

    def _run(
        self,
        operation: Callable[[Session], T],
        *,
        within_s: float = ANSWER_S,
        undo: Callable[[Session], None] | None = None,
    ) -> T:
        """Return the result of an operation in the session, which the thread of the HSM carries out. Raises the error
        of the operation (NotFound, Conflict, Invalid); Unavailable if the HSM fails or the result takes longer than
        `within_s`, and at once if another caller has waited too long for the operation that runs. `undo` runs after an
        operation that takes longer.
        """
        if (late := self._late) is not None and not late.done():
            raise self._unavailable("an earlier operation of the HSM exceeded its time limit, and still runs")
        answer: Future[T] = Future()
        jobs = self._queue()
        jobs.put((answer, partial(self._try, operation)))
        try:
            return answer.result(within_s)
        except TimeoutError:
            self._late = self._running
            # an operation that has not begun is never carried out
            if not answer.cancel() and undo is not None:
                jobs.put((Future(), partial(self._try, undo)))
            raise self._unavailable(f"the HSM has not answered within {within_s:g} s") from None

    def _queue(self) -> SimpleQueue[_Job | None]:
        """Return the queue of the thread of the HSM, which is started before the first operation."""
        with self._lock:
            if self._jobs is None:
                jobs = self._jobs = SimpleQueue()
                self._worker = threading.Thread(target=self._work, args=(jobs,), name="hsm", daemon=True)
                self._worker.start()
            return self._jobs

    def _work(self, jobs: SimpleQueue[_Job | None]) -> None:
        """Carry out operations until the session is to be closed."""
        while (job := jobs.get()) is not None:
            answer, operation = job
            if not answer.set_running_or_notify_cancel():
                continue
            self._running = answer
            try:
                answer.set_result(operation())
            except BaseException as error:  # noqa: BLE001 because the caller receives it
                answer.set_exception(error)
        self._end_session()

    def _try(self, operation: Callable[[Session], T]) -> T:
        """Return the result of an operation in the session. If the operation fails, open a new session and repeat it
        once. Raises NotFound if the HSM does not have the key, Unavailable if the HSM fails.
        """
        from pkcs11.exceptions import NoSuchKey, PinIncorrect, PKCS11Error

        began = time.monotonic()
        try:
            if self._session is not None:
                try:
                    return operation(self._session)
                except PKCS11Error as error:
                    if isinstance(error, NoSuchKey):
                        raise
                    self._end_session()
            if began < self._away_until:
                wait_s = self._away_until - began
                raise self._unavailable(f"the HSM failed before; the server tries again in {wait_s:.0f} s")
            self._session = self._open()
            return operation(self._session)
        except NoSuchKey:
            raise NotFound(
                f"the token `{self.token}` does not contain the key, or contains it twice",
                hint="restore the HSM token that belongs to this database",
                code="no_hsm_key",
            ) from None
        except PKCS11Error as error:
            self._end_session()
            if isinstance(error, PinIncorrect):
                self._refused_pin = self._read_pin()
            now = time.monotonic()
            self._away_until = now + max(AGAIN_S, now - began)
            refusal = self._unavailable(f"{type(error).__name__} {error}".strip())
            log.warning("%s", refusal.message_with_detail)
            raise refusal from None

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            "the HSM cannot be used",
            hint="connect the HSM, and check hsm_module, hsm_token and hsm_pin_file",
            detail=f"the token `{self.token}` of {self._module}: {why[:200]}",
        )

    def _open(self) -> Session:
        """Open a session and return it. If the HSM has refused a PIN, do not send the same PIN again, because a token
        locks itself after several wrong PINs. Raises PKCS11Error if the HSM refuses the session or has refused this PIN
        before.
        """
        import pkcs11

        pin = self._read_pin()
        if pin == self._refused_pin:
            raise pkcs11.exceptions.PKCS11Error(
                "the HSM refused the PIN in hsm_pin_file; the server tries again after the file has changed"
            )
        library = pkcs11.lib(self._module)
        # without this call, the library does not see a token that was removed and inserted again
        library.reinitialize()
        session: Session = library.get_token(token_label=self.token).open(rw=True, user_pin=pin)
        return session

    def _read_pin(self) -> str:
        try:
            if self._pin_file.stat().st_mode & 0o077:
                hint = "make the file accessible only to the user of the server: chmod 600"
                raise Conflict("hsm_pin_file is open to other users", hint=hint, detail=str(self._pin_file))
            return self._pin_file.read_text().strip()
        except OSError as error:
            raise Unavailable(
                "cannot read hsm_pin_file",
                hint="permit the user of the server to read it",
                detail=f"{self._pin_file}: {error.strerror}",
            ) from None

    def _end_session(self) -> None:
        from pkcs11.exceptions import PKCS11Error

        session, self._session, self._private = self._session, None, {}
        if session is not None:
            with suppress(PKCS11Error):  # the session has ended with the connection
                session.close()


def open_hsm(module: str, token: str, pin_file: str) -> Hsm | None:
    """Return the HSM with these settings, which is opened at the first operation; None if `module` is empty. Raises
    Unavailable if the Python module for PKCS #11 is not installed.
    """
    if not module:
        return None
    try:
        import pkcs11  # noqa: F401
    except ModuleNotFoundError as error:
        raise Unavailable(f"an HSM needs the module `{error.name}`", hint='pip install "ostiary[server,hsm]"') from None
    return Hsm(module, token, Path(pin_file))


def _generate(session: Session, key_type: str, id: bytes) -> PublicKey:
    from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag
    from pkcs11.util.ec import encode_named_curve_parameters

    private = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
    usage = MechanismFlag.SIGN | MechanismFlag.VERIFY
    options: dict[str, Any] = {
        "id": id,
        "label": LABEL,
        "store": True,
        "capabilities": usage,
        "private_template": private,
    }
    if key_type in _CURVES:
        kind = KeyType.EC_EDWARDS if key_type == "Ed25519" else KeyType.EC
        mechanism = Mechanism.EC_EDWARDS_KEY_PAIR_GEN if key_type == "Ed25519" else Mechanism.EC_KEY_PAIR_GEN
        curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVES[key_type])}
        parameters = session.create_domain_parameters(kind, curve, local=True)
        public, made = parameters.generate_keypair(mechanism=mechanism, **options)
    elif key_type.startswith("RSA-"):
        public, made = session.generate_keypair(KeyType.RSA, int(key_type.removeprefix("RSA-")), **options)
    else:
        raise Invalid(
            f"the server cannot generate keys of the type {key_type[:32]!a} in an HSM",
            hint=f"{', '.join(_CURVES)}, or RSA-BITS",
        )
    if not made[Attribute.NEVER_EXTRACTABLE] or not made[Attribute.ALWAYS_SENSITIVE]:
        made.destroy()
        public.destroy()
        raise Conflict("the HSM would allow the private key to be read", hint="use another token of an HSM")
    return public


def _attributes_of_key(key_id: str) -> dict[Any, Any]:
    from pkcs11 import Attribute

    return {Attribute.ID: bytes.fromhex(key_id), Attribute.LABEL: LABEL}


def _find(session: Session, kind: ObjectClass, key_id: str) -> Any:
    from pkcs11 import Attribute
    from pkcs11.exceptions import NoSuchKey

    keys = list(session.get_objects({**_attributes_of_key(key_id), Attribute.CLASS: kind}))
    if len(keys) != 1:
        raise NoSuchKey
    return keys[0]


def _wrap(hsm: Hsm, key_id: str, public: PublicKey) -> HsmKey:
    """Return the key of the HSM with this id and public key as a private key object of `cryptography`. Raises
    Unavailable for a type of key that the server does not use.
    """
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_ec_public_key
    from pkcs11.util.rsa import encode_rsa_public_key

    with suppress(UnsupportedAlgorithm, ValueError):  # a curve that is unknown, or has no name
        match public.key_type:
            case KeyType.EC:
                point = load_der_public_key(encode_ec_public_key(public))
                assert isinstance(point, ec.EllipticCurvePublicKey)
                return HsmEcKey(hsm, key_id, point)
            case KeyType.EC_EDWARDS:
                return HsmEd25519Key(hsm, key_id, parse_ed25519_point(bytes(public[Attribute.EC_POINT])))
            case KeyType.RSA:
                key = load_der_public_key(encode_rsa_public_key(public))
                assert isinstance(key, rsa.RSAPublicKey)
                return HsmRsaKey(hsm, key_id, key)
    raise Unavailable(
        f"the key `{key_id}` in the HSM has a type that the server does not use",
        hint="restore the token of the HSM from its backup",
    )


def parse_ed25519_point(encoded: bytes) -> ed25519.Ed25519PublicKey:
    """Return the public key of a `CKA_EC_POINT`. Raises ValueError for the point of another curve, such as Ed448."""
    if len(encoded) > MAX_ED25519_BYTES:
        raise ValueError("not a point of Ed25519")
    return ed25519.Ed25519PublicKey.from_public_bytes(encoded[-32:])


class _Unreadable:
    """The operations of private key objects that a key in an HSM cannot perform: each raises an error."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the private key is in an HSM and can only sign")

    private_bytes = private_bytes_raw = private_numbers = exchange = decrypt = __copy__ = __deepcopy__ = _refuse


class HsmEcKey(_Unreadable, ec.EllipticCurvePrivateKey):
    """A private key on a NIST curve that never leaves an HSM."""

    def __init__(self, hsm: Hsm, key_id: str, public: ec.EllipticCurvePublicKey) -> None:
        self.hsm, self.key_id, self._public = hsm, key_id, public

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """Return the curve of the key."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Return the length of the key in bits."""
        return self._public.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Let the HSM sign the data, or a digest (`Prehashed`), and return the signature in the form of `cryptography`.
        Raises NotFound if the HSM does not have the key, Unavailable if the HSM fails.
        """
        from pkcs11 import Mechanism
        from pkcs11.util.ec import encode_ecdsa_signature

        algorithm = signature_algorithm.algorithm
        digest = bytes(data)
        if isinstance(algorithm, hashes.HashAlgorithm):
            digest = hashlib.new(algorithm.name, data).digest()
        return encode_ecdsa_signature(self.hsm.sign(self.key_id, digest, Mechanism.ECDSA))


class HsmEd25519Key(_Unreadable, ed25519.Ed25519PrivateKey):
    """An Ed25519 private key that never leaves an HSM."""

    def __init__(self, hsm: Hsm, key_id: str, public: ed25519.Ed25519PublicKey) -> None:
        self.hsm, self.key_id, self._public = hsm, key_id, public

    def public_key(self) -> ed25519.Ed25519PublicKey:
        """Return the public key."""
        return self._public

    def sign(self, data: Any) -> bytes:
        """Let the HSM sign the data, and return the signature in the form of `cryptography`. Raises NotFound if the HSM
        does not have the key, Unavailable if the HSM fails.
        """
        from pkcs11 import Mechanism

        return self.hsm.sign(self.key_id, bytes(data), Mechanism.EDDSA)


class HsmRsaKey(_Unreadable, rsa.RSAPrivateKey):
    """An RSA private key that never leaves an HSM, for signatures of PKCS #1 1.5 with SHA-256, SHA-384 or SHA-512."""

    def __init__(self, hsm: Hsm, key_id: str, public: rsa.RSAPublicKey) -> None:
        self.hsm, self.key_id, self._public = hsm, key_id, public

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        return self._public

    @property
    def key_size(self) -> int:
        """Return the length of the key in bits."""
        return self._public.key_size

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        """Let the HSM sign the data, and return the signature in the form of `cryptography`. Raises NotFound if the HSM
        does not have the key, Unavailable if the HSM fails.
        """
        from pkcs11 import Mechanism

        if not isinstance(padding, PKCS1v15) or algorithm.name not in _RSA_HASHES:
            raise TypeError("an RSA key in an HSM signs only by PKCS #1 1.5, with SHA-256, SHA-384 or SHA-512")
        return self.hsm.sign(self.key_id, bytes(data), Mechanism[_RSA_HASHES[algorithm.name]])


HsmKey = HsmEcKey | HsmEd25519Key | HsmRsaKey
