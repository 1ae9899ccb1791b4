"""The stages between a model file and a plan, in their order: prepare, calibrate, judge."""
