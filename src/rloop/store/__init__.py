"""The trajectory store: append, read, query, survive a crash."""
