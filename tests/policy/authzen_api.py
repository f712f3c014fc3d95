"""The address of the AuthZEN API."""

from __future__ import annotations

from tests.support.api_fixtures import ISSUER

API = f"{ISSUER}/api/v1"
