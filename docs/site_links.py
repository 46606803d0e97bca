"""A hook of MkDocs: links that lead through the repository lead through the site.

The pages are written to be read in the repository, where links are paths of files. On the site
SAFETY.md and SECURITY.md are pages too, without a copy of them in docs/. A link to a file that is
no part of the site leads to the repository, if mkdocs.yml knows where that is, and is plain text
otherwise.
"""

from pathlib import Path
import posixpath
import re

from mkdocs.structure.files import File

ROOT_PAGES = ('SAFETY.md', 'SECURITY.md')
LINK = re.compile(r'(?<!!)\[([^\[\]]+)\]\(([^)\s]+)\)')


def on_files(files, config):
    """Add the pages that lie in the root of the repository."""
    root = Path(config.config_file_path).parent
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links of files into links of pages."""
    here = posixpath.dirname(page.file.src_uri)
    folder = here if page.file.src_uri in ROOT_PAGES else posixpath.join('docs', here)

    def lead(link):
        text, target = link.groups()
        path, anchor, section = target.partition('#')
        if not path or '://' in path or path.startswith('mailto:'):
            return link[0]
        in_repository = posixpath.normpath(posixpath.join(folder, path))
        source = in_repository.removeprefix('docs/')
        is_part = in_repository in ROOT_PAGES or in_repository.startswith('docs/')
        if is_part and files.get_file_from_path(source):
            return f'[{text}]({posixpath.relpath(source, here or ".")}{anchor}{section})'
        if config.repo_url:
            return f'[{text}]({config.repo_url.rstrip("/")}/blob/main/{in_repository})'
        return text

    return LINK.sub(lead, markdown)
