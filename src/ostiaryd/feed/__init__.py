"""The feed: messages to guards, reports from guards, and the time until a revocation is in force at every guard."""
