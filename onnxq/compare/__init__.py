"""Models side by side, on any execution providers."""
