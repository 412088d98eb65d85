"""The method, its state and its resumption."""
