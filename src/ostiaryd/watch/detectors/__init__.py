"""Detectors: one module per kind of unusual behaviour. `watch.model.detector` describes the interface of a detector."""
