"""SoftHSM: a PKCS #11 token in files, as the HSM of a server under test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostiaryd.ground.crypto.hsm import Hsm

if TYPE_CHECKING:
    from pkcs11 import Session

_PATHS = map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"))
MODULE = next((path for path in _PATHS if path.exists()), None)
TOKEN, PIN = "ostiary-test", "4711-secret"
_HOLD = """
import fcntl, sys
files = [open(path, "r+b") for path in sys.argv[1:]]
for file in files:
    fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """A new token. `folder` has its files; without them, the token is away."""

    folder: Path
    pin_file: Path

    @property
    def settings(self) -> dict[str, str]:
        """The configuration of a server that uses the token."""
        return {"hsm_module": str(MODULE), "hsm_token": TOKEN, "hsm_pin_file": str(self.pin_file)}

    def open(self) -> Hsm:
        """Return the token as a server has it."""
        return Hsm(str(MODULE), TOKEN, self.pin_file)

    def take_away(self) -> None:
        """Disconnect the token."""
        self.folder.rename(self.folder.with_name("away"))
        self.folder.mkdir()

    def bring_back(self) -> None:
        """Connect the token again."""
        self.folder.rmdir()
        self.folder.with_name("away").rename(self.folder)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let no operation of the token return meanwhile: another process holds the locks of its files."""
        files = [str(path) for path in self.folder.rglob("*") if path.is_file()]
        order = [sys.executable, "-c", _HOLD, *files]
        with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield
            process.stdin.close()

    def session(self) -> Session:
        """Return a session of an administrator, beside that of the server."""
        import pkcs11

        session: Session = pkcs11.lib(str(MODULE)).get_token(token_label=TOKEN).open(rw=True)
        return session


def create_token(folder: Path) -> SoftHsm:
    """Initialize a token below a folder; the variable SOFTHSM2_CONF must name `folder / "softhsm2.conf"`."""
    files = folder / "tokens"
    files.mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {files}\nlog.level = ERROR\n")
    pin_file = folder / "pin"
    pin_file.touch(mode=0o600)
    pin_file.write_text(f"{PIN}\n")
    order = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--so-pin", "admin-pin", "--pin", PIN]
    subprocess.run(order, check=True, capture_output=True)
    return SoftHsm(files, pin_file)
