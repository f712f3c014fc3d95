"""Facts and rules of signals: event sets, issuers, streams. Pure."""
