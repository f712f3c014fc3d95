"""Truth that the server, the guard and the SDK must agree on. Pure: no I/O, no clock, no ambient randomness."""
