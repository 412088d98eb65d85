"""Verifiers: pure functions from a problem and a completion text to a verdict."""
