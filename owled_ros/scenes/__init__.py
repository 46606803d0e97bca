"""Rendered driving scenes with ground truth: the demo bag, and what the embedded model learns."""
