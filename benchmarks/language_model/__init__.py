"""A small language model in memory, its texts, and what is said of the difference of two."""
