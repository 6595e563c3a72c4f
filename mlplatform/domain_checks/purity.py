"""Pure functions: the same input gives the same output, whatever was called before, and is left as it was.

The order of rows and of columns carries no meaning, and a request alone gets what it gets in a batch.
"""

from collections.abc import Callable, Iterator

import polars as pl

from mlplatform.domain_checks.case import Case, Days
from mlplatform.domain_checks.cases import all_cases, request_functions
from mlplatform.domain_checks.difference import Difference, difference
from mlplatform.domain_checks.evidence import Evidence, seed, spread
from mlplatform.domain_checks.reach import functions_of, in_reach
from mlplatform.domain_checks.verdict import Fault, Looked
from mlplatform.errors import CannotJudge

clock_names = {"now", "utcnow", "today"}

alone_rows = 60
"""Requests that are computed one by one; each costs a millisecond per function."""


def same_twice(evidence: Evidence) -> Looked:
    """A function leaves its input as it was, and gives the same again after it was called with something else."""
    cases = all_cases(evidence)
    given = []
    faults = []
    for case in cases:
        frames = {name: frame.clone() for name, frame in case.frames.items()}
        given.append(case.given(frames))
        faults += list(_mutated(case, frames))
    for case, before in zip(cases, given, strict=True):
        # In between, every other case of the same function was called.
        differs = difference(before, case.call(case.frames), keys=case.keys)
        if differs is not None:
            faults.append(
                _fault(
                    case,
                    differs,
                    "called again with the same rows it gives something else",
                    "Let it depend on its arguments alone: no cache, no clock, no random number, no unsorted `unique`",
                )
            )
    faults += _clock_readers(evidence)
    return Looked(at=_of(cases), faults=_first_of_each(faults))


def _clock_readers(evidence: Evidence) -> Iterator[Fault]:
    """Functions that ask what time it is: the answer is the same twice within this second, and another tomorrow."""
    for what, function in functions_of(evidence.domain).items():
        for each in in_reach(function):
            asked_for = sorted(clock_names & set(each.__code__.co_names))
            if asked_for:
                told = f"it asks for the time at which it runs (`{asked_for[0]}`). Use `at`, the time that counts"
                yield Fault(what=what, where=f"function {each.__name__}", told=told)
                break


def _mutated(case: Case, frames: Days) -> Iterator[Fault]:
    if set(frames) != set(case.frames):
        names = ", ".join(sorted(set(frames) ^ set(case.frames)))
        told = "it changes the mapping it is given. Read it, and leave it as it is"
        yield Fault(what=case.what, where=f"{names}, {case.where}", told=told)
        return
    for name, frame in frames.items():
        before = case.frames[name]
        if frame.columns != before.columns or frame.height != before.height:
            new = [column for column in frame.columns if column not in before.columns]
            yield Fault(
                what=case.what,
                where=f"column {', '.join(new) or 'any'}, {case.where}",
                told=f"it changes the frame it is given ({before.width} columns and {before.height} rows became "
                f"{frame.width} and {frame.height}). Work on a new frame: `with_columns`, `pl.concat`",
            )
            continue
        differs = difference(before, frame, keys=case.keys)
        if differs is not None:
            yield _fault(case, differs, "it changes the frame it is given", "Work on a new frame: `with_columns`")


def row_order(evidence: Evidence) -> Looked:
    """The order of the rows carries no meaning."""
    cases = all_cases(evidence)
    faults = []
    only_ties = []
    for case in cases:
        shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=seed) for name, frame in case.frames.items()}
        differs = _differs(case, shuffled)
        if differs is None:
            continue
        if (
            not case.elementwise
            and _differs(case, {name: _ties_kept(frame) for name, frame in case.frames.items()}) is None
        ):
            only_ties.append(case.what)
            continue
        faults.append(
            _fault(
                case,
                differs,
                "it gives something else when the rows come in another order",
                "Sort inside the function by what the order is to mean, and sum whole numbers rather than fractions",
            )
        )
    note = (
        f"; only facts of the same instant trade places in {', '.join(dict.fromkeys(only_ties))}" if only_ties else ""
    )
    return Looked(at=_of(cases) + note, faults=_first_of_each(faults))


def _differs(case: Case, shuffled: Days) -> Difference | None:
    if case.elementwise:
        # Each row must be answered where it stands now: number the rows, and put the answers back in their order.
        (name,) = case.frames
        order = shuffled_positions(case.frames[name].height)
        answers = case.call({name: case.frames[name][order]})
        if answers.height != len(order):
            return Difference(column="any", row="", told=f"{len(order)} rows became {answers.height}")
        back = answers.with_columns(_at=pl.Series(order, dtype=pl.Int64)).sort("_at").drop("_at")
        return difference(case.call(case.frames), back, keys=case.keys)
    return difference(case.call(case.frames), case.call(shuffled), keys=case.keys, rounding=True)


def shuffled_positions(rows: int) -> list[int]:
    """0 to rows - 1 in an order drawn once for all."""
    return pl.int_range(rows, eager=True).sample(fraction=1, shuffle=True, seed=seed).to_list()


def _ties_kept(frame: pl.DataFrame) -> pl.DataFrame:
    """Instants in another order, the facts of one instant in theirs."""
    if "event_time" not in frame.columns:
        return frame.sample(fraction=1, shuffle=True, seed=seed)
    instants = frame.select(pl.col("event_time").unique(maintain_order=True)).sample(
        fraction=1, shuffle=True, seed=seed
    )
    places = instants.with_row_index("_place")
    return (
        frame.join(places, on="event_time", how="left", nulls_equal=True, maintain_order="left")
        .sort("_place", maintain_order=True)
        .drop("_place")
    )


def column_order(evidence: Evidence) -> Looked:
    """The order of the columns carries no meaning."""
    cases = all_cases(evidence)
    return Looked(
        at=_of(cases),
        faults=_changed(
            cases,
            lambda frame: frame.select(frame.columns[::-1]),
            "it gives something else when the columns come in another order",
            "Read columns by their names",
        ),
    )


def _changed(
    cases: list[Case], change: Callable[[pl.DataFrame], pl.DataFrame], wrong: str, mend: str
) -> tuple[Fault, ...]:
    faults = []
    for case in cases:
        given = case.call({name: change(frame) for name, frame in case.frames.items()})
        differs = difference(case.call(case.frames), given, keys=case.keys)
        if differs is not None:
            faults.append(_fault(case, differs, wrong, mend))
    return _first_of_each(faults)


def batch_of_one(evidence: Evidence) -> Looked:
    """A request alone gets, to the bit, what it gets in a batch."""
    cases = request_functions(evidence)
    if not cases:
        raise CannotJudge("the domain has neither on-demand features nor fitted values")
    faults, looked_at = [], 0
    for case in cases:
        (name,) = case.frames
        rows = spread(case.frames[name], alone_rows)
        if rows.is_empty():
            raise CannotJudge("no past request has a label, so there is none to compute alone")
        looked_at = max(looked_at, rows.height)
        together = case.call({name: rows})
        alone = pl.concat([case.call({name: rows[number : number + 1]}) for number in range(rows.height)])
        differs = difference(together, alone, keys=case.keys)
        if differs is not None:
            faults.append(
                _fault(
                    case,
                    differs,
                    "a request alone gets another answer than in a batch, as it will be when it is served",
                    "Compute each row from itself; what is learned from many rows is a fitted value",
                )
            )
    return Looked(at=f"{looked_at} requests one by one in {_of(cases)}", faults=tuple(faults))


def _fault(case: Case, differs: Difference, wrong: str, mend: str) -> Fault:
    return Fault(what=case.what, where=f"{differs.where}, {case.where}", told=f"{wrong}: {differs.told}. {mend}")


def _first_of_each(faults: list[Fault]) -> tuple[Fault, ...]:
    """One fault per function: the second day says nothing new."""
    return tuple({fault.what: fault for fault in reversed(faults)}.values())[::-1]


def _of(cases: list[Case]) -> str:
    count = len({case.what for case in cases})
    return f"{count} function{'s' if count != 1 else ''}"
