from tests.guard.conftest import feeder, guard

__all__ = ["feeder", "guard"]
