"""Passes: they execute a plan on a clone of the model, and decide nothing."""
