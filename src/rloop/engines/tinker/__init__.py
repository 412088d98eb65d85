"""The Tinker engine: a client of a server that holds the model, on a cluster or a service."""
