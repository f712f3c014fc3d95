"""Existing stores as real servers: OpenBao, moto's AWS, and a server that answers what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx2
import hvac

from harness.live_server import free_socket
from harness.patience import PATIENCE_S, eventually

KEY_ID, KEY = "AKIAEXAMPLEEXAMPLE12", "the-secret-key-of-aws"
REGION = "eu-west-1"


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code < 500
    except httpx2.TransportError:
        return False


@contextmanager
def _running(command: list[str], url: str, folder: Path) -> Iterator[str]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "HOME": str(folder)})
    try:
        eventually(lambda: _answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def openbao(folder: Path) -> Iterator[hvac.Client]:
    """An OpenBao with key-value stores of both versions at `secret` and `old`."""
    sock, port = free_socket()
    sock.close()
    command = [str(Path(sys.executable).with_name("bao")), "server", "-dev", "-dev-no-store-token"]
    command += ["-dev-root-token-id=root", f"-dev-listen-address=127.0.0.1:{port}"]
    with _running(command, f"http://127.0.0.1:{port}/v1/sys/health", folder):
        client = hvac.Client(url=f"http://127.0.0.1:{port}", token="root")
        client.sys.enable_secrets_engine("kv", path="old", options={"version": "1"})
        yield client


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """The URL of moto's emulation of AWS."""
    sock, port = free_socket()
    sock.close()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, f"http://127.0.0.1:{port}/moto-api/", folder):
        yield f"http://127.0.0.1:{port}"


def aws_client(service: str, url: str, **more: Any) -> Any:
    """A client of AWS at a URL."""
    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": KEY, **more}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)
