"""A page of the documentation, read as a script: files to be written, and commands to be run.

How a page says what is to be done with a block stands in its fence:

* ```` ```python title="PATH.py" ````: a file. Untitled Python is run, as an example (`>>>`) or as it stands.
* ```` ```console ````: lines that begin with `$` are commands, what follows one is its output. In an output `…` stands
  for anything within a line, and alone on its line for any lines. An output that holds the platform's one-line refusal
  (`mlplatform: `) is that of a command that exits 1.
* `title="leave it running"`: a server; it is ready when it has printed what is shown, and is stopped at the end.
* `title="within a minute"`: asked again until it says so.
* ```` ```bash ````, or nothing: a command a line, comments aside.
"""

import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
"""Every page that a person has written; the reference is generated."""

fence = re.compile(r"^( *)(`{3,})([a-z]*)(?: title=\"([^\"\n]*)\")?\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)

background, again = "leave it running", "within a minute"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block."""

    language: str
    title: str
    text: str
    line: int

    @property
    def path(self) -> str | None:
        """The file that it is; None: it is none."""
        return self.title if "." in self.title.rpartition("/")[2] else None


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command line with the output shown, line by line."""

    text: str
    shown: tuple[str, ...] = ()
    background: bool = False
    again: bool = False

    @property
    def exit_code(self) -> int:
        """What it should end with."""
        return 1 if any(line.startswith("mlplatform: ") for line in self.shown) else 0

    def is_told_by(self, output: str) -> bool:
        """Whether an output is the one shown; where none is shown, any is."""
        return not self.shown or re.fullmatch(self._pattern, output.strip("\n")) is not None

    def hold(self, code: int, output: str) -> None:
        """Hold an exit code and an output against what is shown."""
        assert (code, self.is_told_by(output)) == (self.exit_code, True), (
            f"$ {self.text}\nexit {code}, output:\n{output}\nshown:\n" + "\n".join(self.shown)
        )

    def is_begun_by(self, output: str) -> bool:
        """Whether an output has come so far as what is shown."""
        return re.match(self._pattern, output.strip("\n")) is not None

    @property
    def _pattern(self) -> str:
        lines = [
            r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line).replace("…", ".*") + r" *\n"
            for line in self.shown
        ]
        # The last line of an output ends without one, having been stripped.
        pattern = "".join(lines)
        return pattern.removesuffix(r"\n") if pattern.endswith(r" *\n") else pattern + ".*"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in fence.finditer(text):
        indent, _ticks, language, title, body = match.groups()
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(language=language, title=title or "", text="\n".join(lines) + "\n", line=line))
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a block; none where it is no shell's."""
    if block.language == "console":
        return _session(block)
    if block.language in ("bash", ""):
        lines = (line.partition("  #")[0].strip() for line in block.text.splitlines())
        return [Command(text=line) for line in lines if line and not line.startswith("#")]
    return []


def _session(block: Block) -> list[Command]:
    found, lines = [], block.text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("$ "):
            shown = takewhile(lambda each: not each.startswith("$ "), lines[number + 1 :])
            found.append(
                Command(
                    text=line.removeprefix("$ "),
                    shown=tuple(shown),
                    background=block.title == background,
                    again=block.title == again,
                )
            )
    return found
