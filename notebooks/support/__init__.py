"""Support of the notebooks."""
