"""The exit codes of commands, for scripts; `ostiary --help` lists them.

FAILED: `audit verify`, `doctor`, `threats test` or `trust-anchor test` found a fault; a guard has not confirmed a
`kill` or a `revoke`; or `whatif` found no verdict that would change, but could not replay all decisions.
"""

from __future__ import annotations

REFUSED, USAGE, UNREACHABLE, DENIED, FAILED, CHANGES, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
EXIT_CODES = {
    0: "done",
    REFUSED: "refused",
    USAGE: "wrong usage",
    UNREACHABLE: "the server does not answer",
    DENIED: "the decision is deny",
    FAILED: "a check failed",
    CHANGES: "a policy set would change verdicts",
    INTERRUPTED: "interrupted",
}
