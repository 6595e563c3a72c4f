"""A dossier as two files: the Markdown, and the same as one page of HTML that needs nothing from anywhere.

The page opens from a disk, years later, in any browser: no script, no address outside, and it says so to the browser
itself. Markup that came in by a record is shown as text.
"""

from html import escape
from itertools import pairwise
from pathlib import Path

from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.rollout.dossier import dossier
from mlplatform.rollout.dossier_markdown import slug
from mlplatform.rollout.dossier_records import gather

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 2rem auto; max-width: 70rem;
  padding: 0 1rem }
h1 { font-size: 1.6rem; line-height: 1.25 }
h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 2px solid #1f5fa8; padding-bottom: .2rem }
h3 { font-size: 1.05rem; margin-top: 1.6rem }
.wide { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-size: .9rem }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere;
  min-width: 4rem }
th { background: #eef3f9 }
thead:not(:has(th:not(:empty))) { display: none }
tbody tr td:first-child { font-weight: 500 }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere }
pre { background: #f4f4f4; padding: .6rem; white-space: pre-wrap }
a { color: #1f5fa8 }
@media print { body { margin: 0; max-width: none; font-size: 10pt } .wide { overflow: visible } h2, h3 {
  break-after: avoid } tr { break-inside: avoid } }
"""


def page(markdown: str) -> str:
    """The Markdown as a page of its own."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    title = "Release dossier"
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            plain = "".join(each.content for each in inside.children or ())
            token.attrSet("id", slug(plain))
            title = plain if token.tag == "h1" else title
    body = parser.renderer.render(tokens, parser.options, {})
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def dossier_path(home: Path, model: str, digest: str) -> Path:
    """Where the Markdown of a version of `domain/model` lies; the page lies beside it."""
    return home / "dossiers" / model / f"{digest}.md"


def write_dossier(platform: Platform, model: str, manifest: str | None = None) -> tuple[Path, Path]:
    """Write the dossier of a version of `domain/model` from what is recorded now; returns Markdown and HTML.

    Parameters
    ----------
    manifest : its digest, or the beginning of it that people are shown; None: the champion's

    Raises
    ------
    DataError
        There is no such manifest, or no champion.
    """
    records = gather(platform, model, manifest)
    markdown = dossier(records)
    path = dossier_path(platform.home, model, records.manifest.digest)
    write_whole(path, markdown)
    write_whole(path.with_suffix(".html"), page(markdown))
    return path, path.with_suffix(".html")
