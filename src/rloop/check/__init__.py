"""What can be said before a run: of a recipe, of its size, of this machine."""
