"""The types that the sources name fit together, as far as [tool.mypy] in pyproject.toml looks."""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[2]


def check(folder, *arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mypy', '--config-file', ROOT / 'pyproject.toml', '--cache-dir',
         folder / 'cache', *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_mypy_finds_nothing(tmp_path):
    pytest.importorskip('mypy')
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'no issues' in done.stdout


def test_mypy_would_find_something(tmp_path):
    pytest.importorskip('mypy')
    (tmp_path / 'wrong.py').write_text('def speed() -> float:\n    return "8 m/s"\n')
    assert 'Incompatible return value' in check(tmp_path, tmp_path / 'wrong.py').stdout
