"""The response to findings: playbooks, restrictions, quarantine, incidents; and the kill switch."""
