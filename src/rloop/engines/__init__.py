"""The engine protocol (base) and its implementations."""
