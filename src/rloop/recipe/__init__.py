"""The recipe: its models, how it is read, methods as switches of it. Imports no torch."""
