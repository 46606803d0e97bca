"""Benchmarks are scripts: their folder is put where a script finds its siblings."""

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
