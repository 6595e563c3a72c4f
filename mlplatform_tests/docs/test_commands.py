"""Every command of the documentation is run, in the order of its page, and says what the page shows."""

import doctest
import os
from pathlib import Path
from typing import Any

import pytest

from mlplatform_tests.docs.page import PAGES, ROOT, Block, Command, blocks, commands
from mlplatform_tests.docs.scratch import prelude, scratch_project

run_elsewhere = {
    "make setup": "what these tests run in",
    "source .venv/bin/activate": "what these tests run in",
    "make demo": "a step of CI",
    "make demo ARGS=--exit": "a step of CI",
    "make test": "what this is",
    "mlplatform demo --domain desk": "the demo is a step of CI; its parts are the commands of this page",
    "make docs": "test_site.py builds the site",
    "mlplatform replay synthetic --sample 1000 --day 2024-01-25": "operations/test_replay_view.py replays a sample",
    **{
        f"mlplatform simulate flight_delay --from 2013-07-01 --to 2013-{rest}": "simulation/test_command.py simulates"
        for rest in ("12-31", "08-31 --inject drift@2013-08-01", "08-31 --inject nulls@2013-08-01 --column tailnum")
    },
}
"""Commands that are not run here, and where they are."""


def names(page: Path) -> str:
    """A page as the report names it."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.parametrize("page", PAGES, ids=names)
def test_a_page_can_be_followed(page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever writes its files and types its commands sees what it shows."""
    found = blocks(page)
    todo = [(block, [each for each in commands(block) if each.text not in run_elsewhere]) for block in found]
    examples: dict[str, Any] = {}
    with scratch_project(tmp_path / "project") as scratch:
        first = next((typed for block, typed in todo if typed or block.path), [])
        if tuple(each.text for each in first[: len(prelude)]) == prelude:
            scratch.begin(first[: len(prelude)], of_the_run(tmp_path_factory) / "prelude")
            del first[: len(prelude)]
        for block, typed in todo:
            if block.path is not None:
                scratch.write(block.path, block.text)
            elif block.language == "python":
                run_example(block, examples, page)
            for command in typed:
                scratch.run(command)


def of_the_run(factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of one test run share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def run_example(block: Block, names_so_far: dict[str, Any], page: Path) -> None:
    """Run untitled Python, which may use what the blocks before it have named."""
    if ">>>" not in block.text:
        exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names_so_far)
        return
    test = doctest.DocTestParser().get_doctest(block.text, names_so_far, page.name, str(page), block.line)
    runner = doctest.DocTestRunner(verbose=False)
    told: list[str] = []
    runner.run(test, out=told.append, clear_globs=False)
    names_so_far.update(test.globs)
    assert not runner.failures, "".join(told)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_fence_is_understood(page: Path) -> None:
    """No block escapes the tests by a way of writing that they do not know."""
    fences = [line for line in page.read_text().splitlines() if line.lstrip().startswith("```")]
    assert len(fences) == 2 * len(blocks(page))
    known = {"console", "bash", "python", "mermaid", "json", "text", "yaml", "toml", "html", ""}
    assert {block.language for block in blocks(page)} <= known


@pytest.mark.parametrize(
    ("shown", "output", "told"),
    [
        ((), "anything\n", True),
        (("landed 3 files",), "landed 3 files\n", True),
        (("landed 3 files",), "landed 4 files\n", False),
        (("landed … files",), "landed 4 files\n", True),
        (("landed … files",), "landed 4\n files\n", False),
        (("…", "done"), "one\ntwo\ndone\n", True),
        (("…", "done"), "done\n", True),
        (("…", "done"), "one\ndone\nmore\n", False),
        (("begun", "…"), "begun\nmore\n", True),
        (("begun", "…"), "not begun\n", False),
        (("begun",), "begun\nmore\n", False),
    ],
)
def test_the_output_shown_is_held(shown: tuple[str, ...], output: str, told: bool) -> None:
    """Outside its `…`, what is shown is what must be said, to the letter."""
    assert Command(text="", shown=shown).is_told_by(output) is told


def test_a_refusal_that_is_shown_is_expected() -> None:
    """A command is expected to exit 1 exactly where its refusal is shown."""
    assert Command(text="", shown=("mlplatform: no domain is called 'x'…",)).exit_code == 1
    assert Command(text="", shown=("landed",)).exit_code == 0
