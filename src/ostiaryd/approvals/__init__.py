"""Approval requests to people, their answers, and the use of approvals."""
