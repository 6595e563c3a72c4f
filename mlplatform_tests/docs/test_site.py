"""The site builds offline, loads nothing from outside, and leads nowhere that is not there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

from mlplatform_tests.docs.page import ROOT
from mlplatform_tests.fakes.chromium import chromium

loading = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""Attributes by which a page loads something as soon as it is opened."""

naming = ("canonical", "next", "prev")
"""Relations of a `<link>` that only name an address."""


class Page(HTMLParser):
    """What a page loads, what it links to, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses and names of one element."""
        told = {name: value for name, value in attrs if value}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        self.classes |= set(told.get("class", "").split())
        if "href" in told and tag in ("a", "area"):
            self.links.append(told["href"])
        if tag == "link" and told.get("rel") in naming:
            self.links.append(told["href"])
            return
        self.loads += [told[name] for name in loading.get(tag, ()) if name in told]
        self.loads += in_style(told.get("style", ""))


def in_style(text: str) -> list[str]:
    """Addresses that a style sheet loads; what is held in the sheet itself is none."""
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
    return [address for pair in found for address in pair if address and not address.startswith("data:")]


def is_outside(address: str) -> bool:
    """Whether another host would be asked."""
    return urlsplit(address).netloc != ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; any warning of the build, a broken link among them, has failed it."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_nothing_is_loaded_from_outside(site: Path, pages: dict[Path, Page]) -> None:
    """No page, style sheet or frame of the site asks another host for anything."""
    loads = {path: page.loads for path, page in pages.items()}
    loads |= {path: in_style(path.read_text(encoding="utf-8")) for path in site.rglob("*.css")}
    assert {path.name: outside for path, each in loads.items() if (outside := list(filter(is_outside, each)))} == {}


def test_no_page_has_what_the_theme_would_fetch(pages: dict[Path, Page]) -> None:
    """The theme's script fetches Mermaid, and the counts of a repository, from outside for a page that has them."""
    assert not any(page.classes & {"mermaid", "md-source"} for page in pages.values())


@pytest.mark.end_to_end
@pytest.mark.parametrize("page", ["index.html", "clocks.html", "reference/domain.html"])
def test_a_browser_asks_nobody_else(site: Path, tmp_path: Path, page: str) -> None:
    """What a browser has loaded when a page stands, with its scripts run and its search ready, came from the site."""
    with served(site) as url, chromium(tmp_path) as browser:
        browser.show(f"{url}/{page}")
        loaded = "performance.getEntriesByType('resource').map(each => each.name)"
        browser.until(f"{loaded}.some(each => each.includes('search_index'))", seconds=60, what="the search's index")
        asked = browser.evaluate(loaded)
    assert [each for each in asked if not each.startswith(url)] == []


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder on a free port of the loopback address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class Silent(SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Each address inside the site is a file, and each anchor is on its page."""
    broken = [
        f"{path.relative_to(site)}: {address}"
        for path, page in pages.items()
        for address in (*page.links, *page.loads)
        if not is_outside(address) and not is_there(site, path, address, pages)
    ]
    assert broken == []


def is_there(site: Path, path: Path, address: str, pages: dict[Path, Page]) -> bool:
    """Whether an address inside the site, as a page writes it, is a file and its anchor an element."""
    parts = urlsplit(address)
    base = site if parts.path.startswith("/") else path.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    return not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors


@pytest.mark.parametrize(
    ("html", "loads", "links"),
    [
        ('<script src="https://x.example/a.js">', ["https://x.example/a.js"], []),
        ('<link rel="stylesheet" href="//x.example/a.css">', ["//x.example/a.css"], []),
        ('<link rel="canonical" href="https://x.example/">', [], ["https://x.example/"]),
        ("<p style=\"background: url('https://x.example/a.png')\">", ["https://x.example/a.png"], []),
        ('<a href="https://x.example/">', [], ["https://x.example/"]),
        ('<img src="images/a.png">', ["images/a.png"], []),
    ],
)
def test_what_a_page_loads_is_found(html: str, loads: list[str], links: list[str]) -> None:
    """A link is followed by a person, all else by the browser itself."""
    page = Page(html)
    assert (page.loads, page.links) == (loads, links)


@pytest.mark.parametrize(
    ("address", "there"),
    [
        ("b.html", True),
        ("b.html#part", True),
        ("b.html#other", False),
        ("c.html", False),
        ("#here", True),
        ("#there", False),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, address: str, there: bool) -> None:
    """A missing file and a missing anchor are both noticed."""
    pages = {tmp_path / "a.html": Page('<i id="here">'), tmp_path / "b.html": Page('<i id="part">')}
    for path in pages:
        path.touch()
    assert is_there(tmp_path, tmp_path / "a.html", address, pages) is there


def links_of_markdown(text: str) -> Iterator[str]:
    """Addresses of the links and pictures of a Markdown text, outside its code."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", prose)


@pytest.mark.parametrize("name", ["README.md", "bench/README.md", "CHANGELOG.md"])
def test_every_link_of_a_page_outside_the_site_leads_somewhere(name: str) -> None:
    """The relative links of what is read in the repository are files of it."""
    page = ROOT / name
    addresses = [each for each in links_of_markdown(page.read_text(encoding="utf-8")) if not is_outside(each)]
    assert [each for each in addresses if not (page.parent / urlsplit(each).path).exists()] == []
