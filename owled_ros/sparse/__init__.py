"""Compressed weights that are multiplied as they are: smaller, and faster where memory is slow."""
