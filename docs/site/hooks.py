"""What the site needs beside Markdown: pages from elsewhere in the repository, links for both places, examples.

On GitHub a page links to `../src/…` and README to `docs/…`; the site has neither folder.
"""

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

_ROOT = Path(__file__).resolve().parents[2]

_PAGES: Mapping[str, str] = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/resnet/README.md": "example.md",
    "examples/resnet": "example.md",
}
"""{path in the repository: its page of the site}."""

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)]*)?\)")

_SECTION = re.compile(r"<!-- (?P<page>[\w./]+), section (?P<title>.+?) -->")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    for source, page in _PAGES.items():
        path = _ROOT / source
        if path.is_file() and source != "README.md":
            files.append(File.generated(config, page, content=_for_site(path.read_text(encoding="utf-8"), source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Fill in sections of other files, and turn links that leave docs/ into the site's."""
    if page.file.generated_by is not None:
        return markdown
    if page.file.src_uri == "command_line.md":
        return _with_examples(markdown)
    return _SECTION.sub(_section, _for_site(markdown, f"docs/{page.file.src_uri}"))


def _section(found: re.Match[str]) -> str:
    """The text under a heading of a file of the repository.

    Raises:
        PluginError: it has no such heading.
    """
    text = (_ROOT / found["page"]).read_text(encoding="utf-8")
    parts = re.split(rf"^## {re.escape(found['title'])}\n", text, flags=re.MULTILINE)
    if len(parts) != 2:  # noqa: PLR2004
        raise PluginError(f"{found['page']} has no section {found['title']!r}, which a page of the site includes.")
    return _for_site(parts[1].partition("\n## ")[0].strip(), found["page"])


def _with_examples(markdown: str) -> str:
    """The reference of the commands with their examples, which cyclopts leaves out, and with links to their pages."""
    from keras_qat.cli import app

    sections = re.split(r"^(?=## keras-qat )", markdown, flags=re.MULTILINE)
    for i, section in enumerate(sections[1:], 1):
        name = section.split(maxsplit=3)[2]
        examples = re.findall(r"^ +(keras-qat .*)$", app[name].help_epilogue or "", re.MULTILINE)
        if examples:
            sections[i] = f"{section.rstrip()}\n\n**Examples**:\n\n```console\n{chr(10).join(examples)}\n```\n\n"
    return re.sub(r"\bdocs/(\w+)\.md", r"[\1](\1.md)", "".join(sections))


def _for_site(markdown: str, source: str) -> str:
    """Markdown of a file of the repository with the links of the site.

    Args:
        markdown: its text.
        source: where it is in the repository; its links are relative to that.
    """

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["path"]))
        page = path.removeprefix("docs/") if path.startswith("docs/") else _PAGES.get(path)
        # What has no page, such as a source file, is named by its text.
        return found["text"] if page is None else f"[{found['text']}]({page}{found['anchor'] or ''})"

    return _LINK.sub(link, markdown)
