"""Detectors: a module for each kind of unusual behaviour; `watch.model.detector` has their contract."""
