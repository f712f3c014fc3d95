from tests.support.api_fixtures import client

__all__ = ["client"]
