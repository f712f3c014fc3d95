"""Detectors: a module for each way in which behaviour is noticed; `watch.model.detector` has their contract."""
