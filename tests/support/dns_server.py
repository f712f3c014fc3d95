"""A DNS server on this machine: the records of a zone over UDP, and what was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class DnsServer:
    """A name server. `records` has the texts of each name and type, such as `("host.example.", "A")`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.port: int = sock.getsockname()[1]
        self.records: dict[tuple[str, str], list[str]] = {}
        self.default: list[str] = []
        """Addresses (A) of every other name."""
        self.folder: Path | None = None
        """Folder with a file of TXT records for each name, which other programs write."""
        self.asked: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, name: str, kind: str, *values: str) -> None:
        self.records.setdefault((name.rstrip(".") + ".", kind), []).extend(values)

    def remove(self, name: str, kind: str) -> None:
        self.records.pop((name.rstrip(".") + ".", kind), None)

    def serve(self) -> None:
        """Answer until an empty datagram comes."""
        while True:
            wire, address = self._sock.recvfrom(4096)
            if not wire:
                return
            self._sock.sendto(self._answer(wire), address)

    def _answer(self, wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        if values := self._values(name, kind):
            answer.answer.append(dns.rrset.from_text_list(question.name, 0, "IN", kind, values))
        elif not self.default and not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()

    def _values(self, name: str, kind: str) -> list[str]:
        if (name, kind) in self.records:
            return self.records[name, kind]
        if kind == "A":
            return self.default
        file = None if self.folder is None else self.folder / name.rstrip(".")
        return file.read_text().split() if kind == "TXT" and file is not None and file.exists() else []


@contextmanager
def name_server() -> Iterator[DnsServer]:
    """A name server until the block ends."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    server = DnsServer(sock)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"", ("127.0.0.1", server.port))
        thread.join()
        sock.close()
