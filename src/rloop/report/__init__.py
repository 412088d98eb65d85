"""A run directory turned into one self-contained page."""
