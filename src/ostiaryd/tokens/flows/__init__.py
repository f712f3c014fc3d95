"""What happens to tokens: one function per verb."""

from ostiaryd.tokens.flows.issue import Grant, Issued, issue

__all__ = ["Grant", "Issued", "issue"]
