"""``make site``: the documents and the API reference as a site with search, in ``build/site/html``.

The documents are laid out as they are in the repository, so that their links hold; the reference
is made by mkdocstrings from the docstrings of what the packages name in ``__all__``. It ends with
an error for a broken link or a reference that is not complete. Needs the dependency group ``site``.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"
#: What the site has besides ``docs``.
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE",
         "examples/xnnpack/README.md", "web/README.md")  # fmt: skip
_LINK = re.compile(r"\]\(([^)#\s]+)")
PACKAGES = ("penstock", "penstock.llm", "penstock.batch")


def public_names(package: str) -> list[str]:
    """What a package names in ``__all__``, without the packages that have a page of their own."""
    source = ROOT.joinpath(*package.split("."), "__init__.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return [name for name in names if f"{package}.{name}" not in PACKAGES]
    raise SystemExit(f"error: {package} has no __all__")


def lay_out(source: Path) -> None:
    """The pages, as the repository has them."""
    shutil.rmtree(source, ignore_errors=True)
    for page in (*map(ROOT.joinpath, PAGES), *(ROOT / "docs").rglob("*")):
        if page.suffix in (".md", ".png", ".svg", "") and page.is_file():
            target = source / page.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, target)
            for link in _LINK.findall(page.read_text()) if page.suffix == ".md" else ():
                _bring(page.parent / link, source)
    (source / "api").mkdir()
    for package in PACKAGES:
        (source / "api" / f"{package}.md").write_text(api_page(package))


def _bring(file: Path, source: Path) -> None:
    """A file of the sources that a page links to."""
    if file.is_file() and file.suffix in (".py", ".txt", ".fbs", ".toml", ".h", ".c", ".cpp"):
        target = source / file.resolve().relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def api_page(package: str) -> str:
    """The reference of a package: what it says of itself, and each of its names."""
    lines = [f"# {package}", "", f"::: {package}", "    options:", "      members: false",
             "      show_root_heading: false", "      show_root_toc_entry: false", ""]  # fmt: skip
    for name in public_names(package):
        lines += [f"::: {package}.{name}", ""]
    return "\n".join(lines)


class _Page(HTMLParser):
    """The places that a page has, and those that it leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.places.add(value)
            elif name in ("href", "src") and value is not None and tag != "base":
                self.targets.add(value)


def broken_links(html: Path) -> Iterator[str]:
    """``page: target`` for each that leads nowhere within the site; other hosts are not asked."""
    pages = {path: _Page(path.read_text()) for path in sorted(html.rglob("*.html"))}
    for path, page in pages.items():
        for target in sorted(page.targets):
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            base = html if url.path.startswith("/") else path.parent
            there = (base / unquote(url.path).lstrip("/")).resolve() if url.path else path
            there = there / "index.html" if there.is_dir() else there
            place = unquote(url.fragment)
            if not there.exists() or (
                place and there in pages and place not in pages[there].places
            ):
                yield f"{path.relative_to(html)}: {target}"


def missing_names(html: Path) -> Iterator[str]:
    """The public names that the reference lacks."""
    for package in PACKAGES:
        places = _Page((html / "api" / f"{package}.html").read_text()).places
        for name in public_names(package):
            if f"{package}.{name}" not in places:
                yield f"{package}.{name}"


def main() -> None:
    lay_out(SITE / "source")
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = ["mkdocs", "build", "--strict", "--quiet", "-f", str(ROOT / "docs" / "mkdocs.yml")]
    if subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=quiet, check=False
    ).returncode:
        sys.exit("error: the site cannot be built")
    wrong = [f"a broken link, {link}" for link in broken_links(SITE / "html")]
    wrong += [f"{name} is not in the reference" for name in missing_names(SITE / "html")]
    if wrong:
        sys.exit("\n".join(f"error: {one}" for one in wrong))
    print(SITE / "html" / "index.html")


if __name__ == "__main__":
    main()
