"""rloop: turn a base language model into a better reasoner by RLoop (arXiv 2511.04285)."""

__version__ = "0.1.0"

__all__ = ["__version__"]
