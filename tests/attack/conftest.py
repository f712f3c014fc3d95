from tests.support.guard_fixtures import feeder, guard
from tests.support.policy_fixtures import ask

__all__ = ["ask", "feeder", "guard"]
