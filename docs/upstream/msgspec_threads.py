"""Reproducer: two threads that use one msgspec.Struct type for the first time end the process with SIGSEGV.

Run: python docs/upstream/msgspec_threads.py [ROUNDS]
"""

from __future__ import annotations

import sys
import threading
import types

import msgspec

SOURCE = """
import msgspec

class Inner(msgspec.Struct):
    number: "int"

class Outer(msgspec.Struct):
    inner: "Inner"
    others: "list[Inner]"
"""
BODY = b'{"inner":{"number":1},"others":[{"number":2}]}'
THREADS = 4


def decode_in_threads() -> None:
    """Define two struct types, then let threads decode the outer one at the same moment."""
    module = sys.modules["fresh"] = types.ModuleType("fresh")
    exec(SOURCE, module.__dict__)
    barrier = threading.Barrier(THREADS)

    def decode() -> None:
        barrier.wait()
        msgspec.json.decode(BODY, type=module.Outer)

    threads = [threading.Thread(target=decode) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    sys.setswitchinterval(1e-6)  # threads take turns often; with the default of 5 ms the crash is rarer
    print("msgspec", msgspec.__version__, "Python", sys.version.split()[0], flush=True)
    for number in range(rounds):
        print(number, end="\r", flush=True)
        decode_in_threads()
    print(f"no crash in {rounds} rounds")
