"""docs/reference.md is what docs/reference.py makes of the code."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / 'docs'


def test_the_reference_is_made_of_the_code(ros_domain):
    spec = importlib.util.spec_from_file_location('docs_reference', DOCS / 'reference.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / 'reference.md').read_text().splitlines() == module.reference().splitlines(), \
        'run: python docs/reference.py'
