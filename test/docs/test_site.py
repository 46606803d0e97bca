"""The docs build as a site, and no link of it is dead."""

from html.parser import HTMLParser
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """What a page links to and shows."""

    def __init__(self, page):
        super().__init__()
        self.targets = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        self.targets += [value for name, value in attributes if name in ('href', 'src') and value]


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path):
    pytest.importorskip('mkdocs')
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', tmp_path], cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [page for page in tmp_path.rglob('*.html') if page.name != '404.html']
    assert {'SAFETY', 'SECURITY', 'tutorial', 'reference'} <= {page.parent.name for page in pages}
    for page in pages:
        for target in Links(page).targets:
            path = target.partition('#')[0].partition('?')[0]
            if path and not path.startswith(('https://', 'http://', 'mailto:', 'data:', '/')):
                assert (page.parent / path).exists(), f'{page.relative_to(tmp_path)}: {target}'
