"""What a contract asks of a frame: the declared columns and types, and every rule as a Polars expression.

A landed file is first brought to its declared columns (`cast_to_contract`), then its rows are told apart (`check`).
Both are needed in bulk, on every partition of a backfill, so they are expressions over whole columns; the official
Great Expectations result is made from the counts found here (`mlplatform/features/contract.py`).

It refuses to repair: no value is clipped, filled or rounded, and no row is dropped. A row is kept or refused, and a
refused row names the rules that refused it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from mlplatform.domain.column import Column, Contract, Freshness, PartitionSeverity, RowRule, Severity
from mlplatform.errors import DeclarationError, MalformedFile

# Casts that can be exact; whether each value really survived is looked at afterwards.
_CASTS = frozenset(
    {
        ("integer", "integer"),
        ("integer", "float"),
        ("float", "integer"),
        ("float", "float"),
        ("decimal", "integer"),
        ("decimal", "float"),
        ("integer", "boolean"),
        ("text", "boolean"),
        ("text", "integer"),
        ("text", "float"),
        ("text", "text"),
        ("text", "date"),
        ("text", "timestamp"),
        ("text", "zoned timestamp"),
        ("timestamp", "date"),
        ("timestamp", "timestamp"),
        ("zoned timestamp", "zoned timestamp"),
    }
)


_WORDS = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False, "yes": True, "no": False}
"""Texts that are a Boolean in CSV files and databases, in any case."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a contract, by the name under which it is counted and reported."""

    name: str
    meaning: str
    severity: Severity
    broken: pl.Expr | None = None
    """A Boolean expression, true where a row breaks the rule; null counts as right. None: a rule over the key, over
    the whole partition, or over when that is over."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A frame told apart by its contract: `kept` and `refused` hold every landed row exactly once, in landed order."""

    kept: pl.DataFrame
    refused: pl.DataFrame
    """The rows that are taken out, with `broken_rules` (String): the names of the rules that refused them, by `; `."""

    counts: dict[str, int]
    """Every rule of the contract -> rows that break it; 0 or 1 for a rule over the whole partition."""

    warnings: tuple[str, ...]
    """Broken rules that only mark the partition."""

    blocking: tuple[str, ...]
    """Broken rules that stop the partition."""


def extra_columns(frame: pl.DataFrame, contract: Contract) -> tuple[str, ...]:
    """Columns of a landed frame that its contract does not declare, in landed order: worth a line in the metadata."""
    declared = set(contract.names)
    return tuple(name for name in frame.columns if name not in declared)


def cast_to_contract(frame: pl.DataFrame, contract: Contract, *, path: str) -> pl.DataFrame:
    """Bring a landed frame to the declared columns and dtypes, in declared order, losing nothing.

    A column that is not declared is left out: a source that adds a column keeps every promise it made, and should not
    stop the day. Nothing is lost by it, for the landed file stays, and `extra_columns` tells. A renamed column does
    stop the day, since the declared one is then missing.

    Parameters
    ----------
    frame : landed rows, any dtypes
    contract : the declared columns
    path : where the frame was landed; for the message only

    Returns
    -------
    One row per landed row, in landed order, in `contract.schema`.

    Raises
    ------
    MalformedFile
        A declared column is missing, or a value has no exact counterpart in the declared dtype: 3.7 or NaN as an
        integer, text that is no number, a number where text is declared (leading zeros are already gone), a timestamp
        without a zone where one is declared. Every column at fault is named, with its first value and row (from 1).
        Floats may be rounded to the declared width.
    """
    faults = []
    missing = [name for name in contract.names if name not in frame.columns]
    if missing:
        extra = extra_columns(frame, contract)
        instead = f" (it has {_listed(extra)}, which the contract does not declare)" if extra else ""
        faults.append(f"no column {_listed(missing)}{instead}")
    columns = []
    for column in contract.columns:
        if column.name in missing:
            continue
        cast = _cast(frame.get_column(column.name), column)
        if isinstance(cast, str):
            faults.append(f"column {column.name}: {cast}")
        else:
            columns.append(cast)
    if faults:
        raise MalformedFile(path, "; ".join(faults))
    return pl.DataFrame(columns)


def rules(contract: Contract, *, end: datetime | None = None) -> tuple[Rule, ...]:
    """Every rule of a contract, in the order in which it is reported: columns, row rules, key, partition.

    Parameters
    ----------
    contract : what is declared
    end : aware; when the partition is over, for the expression that tells rows from later

    Raises
    ------
    DeclarationError
        A value rule does not fit its column's dtype, a row rule raises, or two rules have the same name.
    """
    found: list[Rule] = []
    for column in contract.columns:
        found += _value_rules(column)
    for rule in contract.rules:
        found.append(Rule(name=rule.name, meaning=rule.meaning, severity=rule.severity, broken=_broken(rule)))
    found += _ahead_rule(contract, end)
    if contract.unique:
        found.append(
            Rule(
                name=_unique_name(contract),
                meaning="of good rows with the same key, the first is kept",
                severity=contract.unique_severity,
            )
        )
    found += _partition_rules(contract)
    names = [rule.name for rule in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeclarationError(f"a contract has two rules called {_listed(twice)}. Rename the row rule")
    return tuple(found)


def check(frame: pl.DataFrame, contract: Contract, *, end: datetime | None = None) -> Checked:
    """Tell the rows of one partition apart by the rules of its contract.

    Parameters
    ----------
    frame : rows of one partition in `contract.schema`; further columns are carried along
    contract : the rules
    end : aware; when the partition is over. None: its freshness is not judged, and not in the counts, so that
        `contract.validate` raises rather than call it kept

    Returns
    -------
    Rows that break a rule of severity `quarantine` or `blocking` are refused, so that whoever mends a stopped partition
    finds them there; rows that break only a `warning` rule are kept. A null passes every value rule but `not null`. Of
    rows with the same key that are otherwise good the first is kept: a bad row never displaces a good one. In a key,
    nulls are equal to each other. Null shares and row counts are of all landed rows, freshness is of the kept ones.

    Raises
    ------
    DeclarationError
        A rule cannot be computed on these columns: no such column, a broken regular expression, no Boolean. It shows on
        a frame without rows already.
    """
    every = rules(contract, end=end)
    flagged = {rule.name: rule.broken for rule in every if rule.broken is not None}
    flags = _flags(frame, flagged)
    taking = [rule.name for rule in every if rule.name in flagged and rule.severity != "warning"]
    if contract.unique:
        unique = _unique_name(contract)
        repeated = _repeated(frame, contract.unique, _any(flags, taking, frame.height)).alias(unique)
        # A frame without columns has no height that a column could be added to.
        flags = flags.with_columns(repeated) if flags.width else pl.DataFrame([repeated])
        if contract.unique_severity != "warning":
            taking.append(unique)
    out = _any(flags, taking, frame.height)
    counts = {name: int(flags.get_column(name).sum()) for name in flags.columns}
    kept, refused = frame.filter(~out), frame.filter(out)
    counts |= _partition_counts(frame, kept, contract, end)
    judged = [rule for rule in every if rule.name in counts]
    told = pl.Series(dtype=pl.String())
    if refused.height:
        # Only the rules that somebody broke: most of them nobody did, and texts are dear.
        reasons = [pl.when(pl.col(name)).then(pl.lit(name)) for name in taking if counts[name]]
        told = flags.filter(out).select(pl.concat_str(reasons, separator="; ", ignore_nulls=True)).to_series()
    return Checked(
        kept=kept,
        refused=refused.with_columns(told.alias("broken_rules")),
        counts={rule.name: counts[rule.name] for rule in judged},
        warnings=tuple(rule.name for rule in judged if rule.severity == "warning" and counts[rule.name]),
        blocking=tuple(rule.name for rule in judged if rule.severity == "blocking" and counts[rule.name]),
    )


def _value_rules(column: Column) -> list[Rule]:
    name, dtype = column.name, column.dtype
    kind = _kind(dtype)
    here = pl.col(name)
    text = here.cast(pl.String) if kind == "text" and dtype != pl.String() else here
    found: list[tuple[str, str, pl.Expr]] = []
    if not column.nullable:
        found.append(("not null", "a value must be there", here.is_null()))
    if kind == "float":
        found.append(("finite", "neither NaN nor infinite", ~here.is_finite()))
    # NaN compares as larger than every number: it breaks `finite` and no bound.
    real = here.is_not_nan() if kind == "float" else pl.lit(value=True)
    unit = f" {column.unit}" if column.unit else ""
    for bound, word, over in ((column.minimum, "at least", here.lt), (column.maximum, "at most", here.gt)):
        if bound is not None:
            if kind not in ("integer", "float", "decimal"):
                raise DeclarationError(f"column {name}: a {dtype} has no minimum or maximum. Use a row rule")
            found.append((f"{word} {_number(bound)}", f"{word} {_number(bound)}{unit}", over(bound) & real))
    if (column.allowed is not None or column.pattern is not None) and kind != "text":
        raise DeclarationError(f"column {name}: `allowed` and `pattern` are for text, not {dtype}. Use a row rule")
    if column.allowed is not None:
        words = _listed(column.allowed)
        found.append((f"one of {words}", f"one of {words}", ~text.is_in(list(column.allowed))))
    if column.pattern is not None:
        told = f"matches {column.pattern}"
        found.append((told, told, ~text.str.contains(rf"\A(?:{column.pattern})\z")))
    return [
        Rule(name=f"{name}: {rule}", meaning=meaning, severity=column.severity, broken=broken)
        for rule, meaning, broken in found
    ]


def _broken(rule: RowRule) -> pl.Expr:
    try:
        return ~rule.holds()
    except Exception as error:
        raise DeclarationError(f"the rule {rule.name!r} raises {error!r}. Mend the rule") from error


def _flags(frame: pl.DataFrame, rules: Mapping[str, pl.Expr]) -> pl.DataFrame:
    """By rule, true where a row breaks it."""
    try:
        # with_columns, not select: a rule that is a mere literal is then stretched to the height of the frame.
        flags = frame.with_columns(broken.alias(name) for name, broken in rules.items()).select(*rules)
    except pl.exceptions.PolarsError as error:
        if len(rules) > 1:
            for name, broken in rules.items():
                _flags(frame, {name: broken})
        (name, *_) = rules
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise DeclarationError(f"the rule {name!r} cannot be computed: {reason}. Mend the rule") from error
    for name, dtype in flags.schema.items():
        if dtype not in (pl.Boolean(), pl.Null()):
            raise DeclarationError(f"the rule {name!r} is {dtype}. It must be true where a row is right")
    return flags.with_columns(pl.all().cast(pl.Boolean()).fill_null(value=False))


def _ahead_rule(contract: Contract, end: datetime | None) -> list[Rule]:
    if contract.freshness is None or contract.freshness.ahead is None:
        return []
    (column,) = (column for column in contract.columns if column.name == contract.freshness.column)
    return [
        Rule(
            name=f"{column.name}: at most {contract.freshness.ahead} after the day's end",
            meaning="nothing is dated later than the day it is in",
            severity=column.severity,
            broken=None if end is None else pl.col(column.name) > end + contract.freshness.ahead,
        )
    ]


def _partition_rules(contract: Contract) -> list[Rule]:
    found = []
    for column in contract.columns:
        if column.max_null_share is not None:
            found.append(
                Rule(
                    name=_null_share_name(column),
                    meaning="share of nulls in the partition",
                    severity=column.null_share_severity,
                )
            )
    limits: list[tuple[str, str, PartitionSeverity]] = []
    if contract.min_rows:
        limits.append(
            (_min_rows_name(contract), "half a file must not pass for a quiet day", contract.row_count_severity)
        )
    if contract.max_rows is not None:
        limits.append(
            (_max_rows_name(contract), "a file that is too long is no ordinary day", contract.row_count_severity)
        )
    if contract.freshness is not None:
        limits.append(
            (_freshness_name(contract.freshness), "an export that broke off is no day", contract.freshness.severity)
        )
    limits.append((_refused_name(contract), "with more rows in quarantine the rest is not trusted either", "blocking"))
    return found + [Rule(name=name, meaning=meaning, severity=severity) for name, meaning, severity in limits]


def _partition_counts(
    frame: pl.DataFrame, kept: pl.DataFrame, contract: Contract, end: datetime | None
) -> dict[str, int]:
    rows = frame.height
    counts = {
        _null_share_name(column): int(frame.get_column(column.name).null_count() > column.max_null_share * rows)
        for column in contract.columns
        if column.max_null_share is not None
    }
    counts[_min_rows_name(contract)] = int(rows < contract.min_rows)
    if contract.max_rows is not None:
        counts[_max_rows_name(contract)] = int(rows > contract.max_rows)
    if contract.freshness is not None and end is not None:
        newest = kept.get_column(contract.freshness.column).max()
        late = not isinstance(newest, datetime) or newest < end - contract.freshness.within
        counts[_freshness_name(contract.freshness)] = int(late)
    counts[_refused_name(contract)] = int(rows - kept.height > contract.max_refused_share * rows)
    return counts


def _unique_name(contract: Contract) -> str:
    return f"unique({', '.join(contract.unique)})"


def _null_share_name(column: Column) -> str:
    return f"{column.name}: at most {_percent(column.max_null_share or 0.0)} null"


def _min_rows_name(contract: Contract) -> str:
    return f"rows: at least {_number(contract.min_rows)}"


def _max_rows_name(contract: Contract) -> str:
    return f"rows: at most {_number(contract.max_rows or 0)}"


def _freshness_name(freshness: Freshness) -> str:
    return f"{freshness.column}: newest within {freshness.within} of the day's end"


def _refused_name(contract: Contract) -> str:
    return f"refused rows: at most {_percent(contract.max_refused_share)}"


def _any(flags: pl.DataFrame, names: list[str], rows: int) -> pl.Series:
    if not names:
        return pl.repeat(False, rows, dtype=pl.Boolean(), eager=True)
    return flags.select(pl.any_horizontal(names)).to_series()


def _repeated(frame: pl.DataFrame, key: tuple[str, ...], out: pl.Series) -> pl.Series:
    """True where a row that is not `out` has the key of an earlier row that is not `out`."""
    row = pl.int_range(frame.height, dtype=pl.Int64(), eager=True)
    first = frame.filter(~out).select(pl.struct(key).is_first_distinct()).to_series()
    return row.is_in(row.filter(~out).filter(~first).implode())


def _cast(values: pl.Series, column: Column) -> pl.Series | str:
    """The values in the column's dtype, or why that cannot be."""
    have, want = values.dtype, column.dtype
    if have == want:
        return values
    if have == pl.Null():
        return values.cast(want)
    kinds = _kind(have), _kind(want)
    if kinds == ("timestamp", "zoned timestamp"):
        return f"carries no time zone, declared {want}; {_first(values, values.is_not_null())}. Write the zone with it"
    if kinds not in _CASTS:
        return f"is {have}, declared {want}; {_first(values, values.is_not_null())}"
    if kinds[0] == "text":
        values = values.cast(pl.String)
    cast = _parsed(values, want) if kinds[0] == "text" else _converted(values, want)
    lost = values.is_not_null() & cast.is_null()
    if kinds[0] != "text" and kinds != ("float", "float"):
        lost |= (cast.cast(have, strict=False) != values).fill_null(value=True) & values.is_not_null()
    if kinds == ("float", "float"):
        lost |= (cast.is_infinite() & values.is_finite()).fill_null(value=False)
    return f"{_first(values, lost)}, which is no {want}" if lost.any() else cast


def _converted(values: pl.Series, want: pl.DataType) -> pl.Series:
    return values.cast(want, strict=False)


def _parsed(values: pl.Series, want: pl.DataType) -> pl.Series:
    if isinstance(want, pl.Boolean):
        return values.str.to_lowercase().replace_strict(_WORDS, default=None, return_dtype=pl.Boolean())
    if isinstance(want, pl.Date):
        return values.str.to_date("%Y-%m-%d", strict=False)
    if isinstance(want, pl.Datetime):
        zone = "" if want.time_zone is None else "%#z"
        moments = values.str.replace(" ", "T", literal=True).str.to_datetime(
            f"%Y-%m-%dT%H:%M:%S%.f{zone}", time_unit=want.time_unit, strict=False
        )
        return moments.cast(want)
    return values.cast(want, strict=False)


def _first(values: pl.Series, fault: pl.Series) -> str:
    """The first value at fault and its row; how many more there are."""
    count = int(fault.sum())
    if not count:
        return "no value in it"
    row = int(fault.arg_max() or 0)
    shown = values[row]
    told = repr(shown) if isinstance(shown, str) else str(shown)
    told = told if len(told) <= 40 else f"{told[:40]}…"
    return f"row {row + 1} holds {told}" + (f" (and {count - 1} more rows are at fault)" if count > 1 else "")


Kind = Literal["boolean", "integer", "float", "decimal", "text", "date", "timestamp", "zoned timestamp", "other"]


def _kind(dtype: pl.DataType) -> Kind:
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "float"
    if dtype.is_decimal():
        return "decimal"
    if isinstance(dtype, pl.Boolean):
        return "boolean"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "text"
    if isinstance(dtype, pl.Date):
        return "date"
    if isinstance(dtype, pl.Datetime):
        return "timestamp" if dtype.time_zone is None else "zoned timestamp"
    return "other"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    """All names up to eight; a list of airports would bury the rule it belongs to."""
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:6])} and {len(names) - 6} more"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _percent(share: float) -> str:
    return f"{share * 100:.6g} %"
