"""What the pipeline costs: its six stages on 1 × to 30 × the rows of the flights, beside the same work in bare Polars.

The synthetic domain makes as many rows as are asked for; they are spread over the same 60 days, so a day grows with the
size. Each run is a process of its own and starts from landed files. Bare Polars does what a script would: it reads the
same files, applies the same rules and the domain's own functions, writes a plain Parquet file per day and table, and
keeps no hash, no revision and no log. Both must give the same rows. `ARGS="--sizes 1,3"` is quick; `--days` spreads the
rows over another number of days.

Time is the wall's. Whether a row costs the same at every size is told by the processor's time, which neighbours on a
shared machine disturb less.
"""

import argparse
import multiprocessing
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domains.synthetic import DOMAIN as SHOP
from mlplatform.domains.synthetic.ground_truth import Switches, first_day, rows
from mlplatform.features import materialization
from mlplatform.features.landing.landing import land
from mlplatform.features.rules import rules
from mlplatform.features.tables import Tables, available_at, clocks, partition_end, stages
from mlplatform.features.view import look_back_days
from mlplatform.provenance.platform import Platform

HOME = Path("var/bench/pipeline")
FLIGHTS = 336_776
COURIERS = 100
"""Times the size: the entities grow with the rows."""

FAULTS = Switches(duplicates=0.01, null_districts=0.01)
"""So that the quarantine has rows."""

AIM_RATIO = 0.5
AIM_LINEAR = 1.3
AIM_PEAK_MIB = 768
"""A million rows as read, as computed, as sorted and as written, and Python with its libraries; the same for any number
of days, and for any day of up to a million rows."""

PROCESS = Path("/proc/self")

FACTS = "deliveries"
SOURCE = SHOP.source("orders")
CONTRACT = replace(SOURCE.contract, max_rows=None)
DOMAIN: Domain = replace(SHOP, sources=(replace(SOURCE, contract=CONTRACT),), end=None)


@dataclass(frozen=True)
class Size:
    """How much there is to do, and where."""

    times: int
    days: int

    @property
    def per_day(self) -> int:
        """Orders of a day."""
        return FLIGHTS * self.times // self.days

    @property
    def dates(self) -> list[date]:
        """The days."""
        return [first_day + timedelta(days=number) for number in range(self.days)]

    @property
    def home(self) -> Path:
        """Where its files are."""
        return HOME / f"{self.times}x"

    @property
    def platform(self) -> Platform:
        """The platform that runs on them, long after the last day."""
        return Platform(home=self.home.absolute(), clock=lambda: datetime(2025, 1, 1, tzinfo=UTC))


@dataclass
class Cost:
    """What a stage took."""

    seconds: float = 0.0
    processor: float = 0.0
    """Seconds of all cores."""

    peak: int = 0
    """MiB of resident memory at most, Python and its libraries included."""


@dataclass
class Run:
    """What a run took, and what it gave."""

    costs: dict[str, Cost] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        _forget_peak()
        started, processor = time.perf_counter(), time.process_time()
        yield
        self.costs[name] = Cost(time.perf_counter() - started, time.process_time() - processor, _peak())

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(cost.seconds for cost in self.costs.values())

    @property
    def processor(self) -> float:
        """Of all stages."""
        return sum(cost.processor for cost in self.costs.values())

    @property
    def peak(self) -> int:
        """Of the whole run."""
        return max(cost.peak for cost in self.costs.values())


def main() -> None:
    """Run both at every size, compare, print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sizes", default="1,3,10,30", help="times the rows of the flights")
    arguments.add_argument("--days", type=int, default=60)
    told = arguments.parse_args()
    sizes = [Size(int(times), told.days) for times in told.sizes.split(",")]
    found = {}
    for size in sizes:
        shutil.rmtree(size.home, ignore_errors=True)
        landed = in_a_process(land_days, size)
        # Interleaved, so that a busy minute of the machine falls on both.
        rounds = [
            (in_a_process(run_platform, size), in_a_process(run_bare, size)) for _ in range(3 if size.times <= 3 else 2)
        ]
        found[size] = rounds
        check_rows(size, landed, rounds)
        in_a_process(compare, size)
        print_size(size, landed, rounds)
        shutil.rmtree(size.home)
    print_aims(found)


def in_a_process(work: Callable[[Size], Run], size: Size) -> Run:
    """Do it in a fresh process, whose memory is all its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, size).result()


def land_days(size: Size) -> Run:
    """Make the orders of every day and put them where the source lands them."""
    run = Run()
    with run.stage("land"):
        for day in size.dates:
            made = rows(day, rows_per_day=size.per_day, switches=FAULTS, courier_count=COURIERS * size.times)
            land(size.platform, DOMAIN, DOMAIN.source("orders"), day, made)
            run.rows["land"] = run.rows.get("land", 0) + made.height
    return run


def run_platform(size: Size) -> Run:
    """Every stage as the platform runs it."""
    run, platform, days = Run(), size.platform, [day.isoformat() for day in size.dates]
    shutil.rmtree(size.home / "tables", ignore_errors=True)
    for stage in stages:
        with run.stage(stage):
            outcome = materialization.run(platform, DOMAIN, stage, days, run_id="bench")
        materialization.raise_failures(outcome)
        run.rows[stage] = sum(each.rows for tables in outcome.revisions.values() for each in tables.values())
    return run


def run_bare(size: Size) -> Run:
    """Every stage as a script would run it."""
    run, days = Run(), [day.isoformat() for day in size.dates]
    shutil.rmtree(size.home / "bare", ignore_errors=True)
    with run.stage("raw"):
        columns = [pl.col(name).cast(dtype) for name, dtype in CONTRACT.schema.items()]
        for day in days:
            landed = pl.read_parquet(size.home / "landing" / DOMAIN.name / "orders" / f"{day}.parquet")
            _write(run, size, "raw", "orders", day, landed.select(columns))
    with run.stage("validated"):
        for day in days:
            kept, refused = _checked(_read(size, "raw", "orders", day))
            _write(run, size, "validated", "orders", day, kept)
            _write(run, size, "quarantine", "orders", day, refused)
    with run.stage("base"):
        for day in days:
            made = DOMAIN.source("orders").base(_read(size, "validated", "orders", day))
            _write(run, size, "base", "orders", day, _published(made, day))
    with run.stage("derived"):
        for day in days:
            for derived in DOMAIN.derived:
                made = derived.function({"orders": _read(size, "base", "orders", day)})
                _write(run, size, "derived", derived.name, day, _published(made, day))
    with run.stage("feature_store"):
        held: dict[str, pl.DataFrame] = {}
        longest = max(look_back_days(view) for view in DOMAIN.views)
        for number, day in enumerate(days):
            # Each day is read once for all the windows that hold it.
            window = days[max(0, number - longest + 1) : number + 1]
            held = {each: held[each] if each in held else _read(size, "derived", FACTS, each) for each in window}
            facts = pl.concat(held.values())
            for view in DOMAIN.views:
                end = partition_end(day)
                inside = pl.col("event_time").is_between(end - view.look_back, end, closed="left")
                made = view.function(facts.filter(inside), end)
                if "event_time" not in made.columns:
                    made = made.with_columns(event_time=pl.lit(end, dtype=clocks["event_time"]))
                _write(run, size, "feature_store", view.name, day, _published(made, day))
    return run


def _checked(landed: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that keep the contract, and the others with the rules they break."""
    taking = [rule for rule in rules(CONTRACT) if rule.broken is not None and rule.severity != "warning"]
    broken = {rule.name: rule.broken.fill_null(value=False) for rule in taking if rule.broken is not None}
    marked = landed.with_columns(out=pl.any_horizontal(broken.values()))
    good = marked.filter(~pl.col("out")).with_columns(first=pl.struct(CONTRACT.unique).is_first_distinct())
    reasons = [pl.when(rule).then(pl.lit(name)) for name, rule in broken.items()]
    bad = marked.filter("out").with_columns(broken_rules=pl.concat_str(reasons, separator="; ", ignore_nulls=True))
    again = good.filter(~pl.col("first")).with_columns(broken_rules=pl.lit(f"unique({', '.join(CONTRACT.unique)})"))
    return good.filter("first").drop("out", "first"), pl.concat([bad.drop("out"), again.drop("out", "first")])


def _published(made: pl.DataFrame, day: str) -> pl.DataFrame:
    return made.with_columns(available_at=pl.lit(available_at(DOMAIN, day), dtype=clocks["available_at"]))


def _read(size: Size, stage: str, table: str, day: str) -> pl.DataFrame:
    return pl.read_parquet(size.home / "bare" / stage / table / f"{day}.parquet")


def _write(run: Run, size: Size, stage: str, table: str, day: str, made: pl.DataFrame) -> None:
    made.write_parquet(size.home / "bare" / stage / table / f"{day}.parquet", mkdir=True)
    run.rows[stage] = run.rows.get(stage, 0) + made.height


def check_rows(size: Size, landed: Run, rounds: list[tuple[Run, Run]]) -> None:
    """Every row that has landed is somewhere, and both say so."""
    for platform, bare in rounds:
        told = platform.rows
        right = {
            "raw": landed.rows["land"],
            "validated": landed.rows["land"] - told["quarantine"],
            "base": told["validated"],
            "derived": told["validated"],
            # Every courier and every district has an order within three days.
            "feature_store": size.days * (COURIERS * size.times + 5),
        }
        if told != told | right or bare.rows != told or not 0 < told["quarantine"] < 0.05 * told["raw"]:
            raise SystemExit(f"{size.times} x: rows differ. Right: {right}; platform: {told}; bare: {bare.rows}")


def compare(size: Size) -> Run:
    """Both have the same features, and the same facts to all appearance."""
    tables = Tables(size.platform, DOMAIN)
    for view in DOMAIN.views:
        features = tables.features(view)
        key = [*view.entity, "available_at"]
        ours = features.read().sort(key)
        bare = pl.read_parquet(size.home / "bare" / "feature_store" / view.name / "*.parquet").select(ours.columns)
        if not ours.equals(bare.sort(key)):
            raise SystemExit(f"{size.times} x: the features of {view.name} differ")
    for name, store in tables.of("derived").items():
        ours = store.read(columns=["order_id", "minutes", "late"]).sum()
        bare = pl.scan_parquet(size.home / "bare" / "derived" / name / "*.parquet").select(ours.columns).sum().collect()
        if not ours.equals(bare):
            raise SystemExit(f"{size.times} x: the facts of {name} differ: {ours.row(0)} and {bare.row(0)}")
    return Run()


def print_size(size: Size, landed: Run, rounds: list[tuple[Run, Run]]) -> None:
    """One line per stage: medians of the rounds."""
    count = landed.rows["land"]
    print(f"\n{size.times} x: {count:,} rows in {size.days} days, {COURIERS * size.times:,} couriers")
    print(f"{'stage':<14}{'seconds':>9}{'rows/s':>12}{'peak MiB':>10}{'bare Polars, seconds':>22}{'peak MiB':>10}")
    for stage in ("land", *stages):
        ours = [landed.costs["land"]] if stage == "land" else [platform.costs[stage] for platform, _ in rounds]
        bare = [each.costs[stage] for _, each in rounds if stage in each.costs]
        seconds = statistics.median(cost.seconds for cost in ours)
        line = f"{stage:<14}{seconds:>9.2f}{count / seconds:>12,.0f}{max(cost.peak for cost in ours):>10,}"
        if bare:
            line += f"{statistics.median(cost.seconds for cost in bare):>22.2f}{max(cost.peak for cost in bare):>10,}"
        print(line)
    seconds = statistics.median(platform.seconds for platform, _ in rounds)
    peak = max(platform.peak for platform, _ in rounds)
    bare_seconds, bare_peak = statistics.median(each.seconds for _, each in rounds), max(b.peak for _, b in rounds)
    print(
        f"{'raw to store':<14}{seconds:>9.2f}{count / seconds:>12,.0f}{peak:>10,}{bare_seconds:>22.2f}{bare_peak:>10,}"
    )
    print(f"rows/s against bare Polars: {_spread([bare.seconds / ours.seconds for ours, bare in rounds])}")
    print(
        f"of the processor's time:    {_spread([bare.processor / ours.processor for ours, bare in rounds])}", flush=True
    )


def print_aims(found: dict[Size, list[tuple[Run, Run]]]) -> None:
    """One line per aim."""
    print()
    for size, rounds in found.items():
        ratio = statistics.median(bare.seconds / ours.seconds for ours, bare in rounds)
        _aim(f"rows_per_second.vs_bare_polars.{size.times}x", ratio, ">=", AIM_RATIO)
    # The largest size against the next to the smallest: at the smallest, what a partition costs is most of it.
    *_, largest = found
    compared = next((size for size in found if size.times >= 3), largest)
    if largest != compared:
        per_row = {
            size: statistics.median(ours.processor for ours, _ in found[size]) / size.times
            for size in (compared, largest)
        }
        name = f"processor_time_per_row.{largest.times}x_vs_{compared.times}x"
        _aim(name, per_row[largest] / per_row[compared], "<=", AIM_LINEAR)
    _aim(f"peak_mib.{largest.times}x", max(ours.peak for ours, _ in found[largest]), "<=", AIM_PEAK_MIB)


def _aim(name: str, value: float, order: str, aim: float) -> None:
    met = value >= aim if order == ">=" else value <= aim
    told = f"{value:.2f}" if value < 100 else f"{value:.0f}"
    print(f"aim  pipeline.{name}  {told}  {order} {aim}  {'met' if met else 'short'}")


def _spread(ratios: list[float]) -> str:
    return f"{min(ratios):.2f} – {statistics.median(ratios):.2f} – {max(ratios):.2f}"


def _forget_peak() -> None:
    """Let the kernel count the peak of resident memory anew, where it can."""
    if PROCESS.exists():
        (PROCESS / "clear_refs").write_text("5")


def _peak() -> int:
    """Peak of resident memory in MiB, since it was last forgotten; on a Mac since the process began."""
    if not PROCESS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2
    told = next(line for line in (PROCESS / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) // 1024


if __name__ == "__main__":
    main()
