"""Advantages, losses and selection: one pure function per equation."""
