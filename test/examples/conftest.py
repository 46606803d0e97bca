"""Lets the tests of the examples import what they share."""

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent))
