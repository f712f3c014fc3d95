"""The response to findings: playbooks, restrictions, quarantine, the kill switch, incidents."""
