from tests.tokens.conftest import client

__all__ = ["client"]
