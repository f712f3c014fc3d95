from tests.guard.conftest import feeder, guard
from tests.policy.conftest import ask

__all__ = ["ask", "feeder", "guard"]
