"""The seam (base) and the engines behind it."""
