"""Metrics that merge, the run log, the console and the sinks."""
