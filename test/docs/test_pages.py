"""Every page: what it links to is there."""

from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('training/*.md'),
                *ROOT.glob('examples/*.md')])


def sections(page):
    """Return the names by which the sections of a page can be linked to."""
    return {re.sub(r'[^\w -]', '', line.lstrip('# ')).strip().lower().replace(' ', '-')
            for line in page.read_text().splitlines() if line.startswith('#')}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if target.startswith(('https://', 'http://', 'mailto:')):
            continue
        path, _, section = target.partition('#')
        other = (page.parent / path) if path else page
        assert other.exists(), target
        if section:
            assert section in sections(other), target
