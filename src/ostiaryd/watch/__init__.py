"""Detection: behaviour profiles, detectors, findings and risk scores."""
