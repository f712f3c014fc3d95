"""One module for each way in which behaviour is noticed; `watch.model.detector` says what such a module promises."""
