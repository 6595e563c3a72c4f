"""Every answer of ten eventful days given again: the right verdict, the right cause, and how quickly.

`make bench-replay`; `ARGS=--keep` takes the world of the last run. What happened in it stands in `bench.replay_acts`,
and what must be said of each answer was written down when it was given. Then single bits flip, another Polars and
another XGBoost replay what was answered with these, and the first model is made again in a fresh clone.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from bench.aims import aim, step
from bench.replay_acts import make_world
from bench.replay_domain import MODEL, NAME, clone_domain
from bench.replay_world import environment_of

HOME = Path("var/bench/replay")
ROOT = Path(__file__).resolve().parents[1]

LIBRARIES = {"polars": "polars==2.0.0", "xgboost": "xgboost-cpu==3.1.3"}
"""Neither is what the lock file has. The hash of a text, which the second model has as a feature, is another in this
Polars; the trees score to the same bits in this XGBoost."""

TOLERANCE = 1e-4
"""As `monitoring.behaviour.rescored` has it, of scores below 1."""

SINGLE = 100
ROUNDS = 3
COMMANDS = ("first-model-0", "fallback-cached-0", "rollout-canary_list-0:0", "back-wrong_arm-0")


def main() -> None:
    """Build, replay, flip, reproduce."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--keep", action="store_true", help="take the world that is there")
    arguments.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    given = arguments.parse_args()
    folder = (HOME / "world").absolute()
    if not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
        with step("1,000 answers by three versions, and 10,000 more"):
            make_world(folder)
    # From here on this process and those it starts know the domain, as its code is after all of that.
    os.environ.update(environment_of(folder))
    sys.path.insert(0, str(folder / "site"))
    for part in given.parts:
        PARTS[part](folder)


def verdicts(folder: Path) -> None:
    """What is said of the thousand, beside what must be said."""
    from bench.replay_rows import expected_of, fresh, replays_of_all

    with step("every answer and every shadow of the thousand, replayed"):
        found = fresh(replays_of_all, folder)
    expected = expected_of(folder).filter(pl.col("kind") != "many")
    both = expected.join(found, on=["id", "arm"], how="left", suffix="_found")
    # Of a shadow whose live answer went to the wrong arm nothing was written down.
    right = pl.col("outcome").eq_missing(pl.col("outcome_found")) & pl.col("cause").eq_missing(pl.col("cause_found"))
    both = both.with_columns(right.alias("right"))
    table = both.group_by("kind", "outcome", "cause").agg(
        pl.len().alias("answers"), pl.col("right").sum(), pl.col("source").unique().sort().str.join(", ")
    )
    print("\n| answers | by | must be | rows | right |\n|---|---|---|---|---|")
    for row in table.sort("outcome", "cause", "kind", nulls_last=False).iter_rows(named=True):
        must = _told(row["outcome"], row["cause"])
        print(f"| {row['kind'].replace('_', ' ')} | {row['source']} | {must} | {row['answers']} | {row['right']} |")
    print("\n| found | rows | of which expected |\n|---|---|---|")
    for outcome, cause, rows, hits in (
        both.group_by("outcome_found", "cause_found").agg(pl.len(), pl.col("right").sum()).sort(pl.all()).rows()
    ):
        print(f"| {_told(outcome, cause)} | {rows} | {hits} |")
    for row in both.filter(~pl.col("right")).unique("kind").iter_rows(named=True):
        print(
            f"  wrong: {row['id']} ({row['arm']}): {_told(row['outcome_found'], row['cause_found'])}: {row['reason']}"
        )
    print()
    for arm, name in (("answer", "right_verdicts"), ("shadow", "right_verdicts_of_shadows")):
        of = both.filter(pl.col("arm") == arm)
        aim(f"replay.{name}", int(of["right"].sum()), ">=", of.height)
    commands(dict(both.filter(pl.col("arm") == "answer").select("id", "outcome").iter_rows()))


def commands(outcomes: dict[str, str]) -> None:
    """Some of them by the command, each in a process of its own."""
    right, taken = 0, []
    for name in COMMANDS:
        started = time.monotonic()
        done = _mlplatform("replay", name, "--json")
        taken.append(time.monotonic() - started)
        told = json.loads(done.stdout) if done.stdout.startswith("{") else {"answers": []}
        # The answer stands first, the shadow's behind it.
        good = [each["replayed"]["verdict"]["outcome"] for each in told["answers"][:1]] == [outcomes[name]]
        right += good
        if not good:
            print(f"  {name}: exit code {done.returncode}; {(done.stdout or done.stderr)[-300:]}")
        elif name == COMMANDS[0]:
            print(f"  `mlplatform replay {name} --json` tells: {', '.join(told)}")
    print(f"  the command, cold: {_spread(taken, 's')}")
    aim("replay.right_verdicts_by_command", right, ">=", len(COMMANDS))


def speed(folder: Path) -> None:
    """Single replays with their trails, and ten thousand at once."""
    from bench.replay_rows import expected_of, fresh, replays_of_all, seconds_of_each, seconds_of_many

    expected = expected_of(folder)
    told = expected.filter(pl.col("kind") != "many", pl.col("arm") == "answer")["id"]
    with step(f"{SINGLE} single replays, each with its trail, in one process"):
        taken = sorted(fresh(seconds_of_each, folder, told.gather_every(len(told) // SINGLE).head(SINGLE).to_list()))
    p99 = taken[-1 - SINGLE // 100]
    print(f"  p50 {1e3 * statistics.median(taken):.0f} ms, p99 {1e3 * p99:.0f} ms, longest {1e3 * taken[-1]:.0f} ms")
    aim("replay.seconds_warm.p99", p99, "<=", 1.0)
    with step(f"10,000 replays at once, {ROUNDS} rounds in one process"):
        rounds = fresh(seconds_of_many, folder, ROUNDS)
    print(f"  {_spread(rounds, 's')}; {10_000 / statistics.median(rounds):,.0f} rows / s")
    aim("replay.seconds_of_10000", max(rounds), "<=", 120.0)
    exact = int((fresh(replays_of_all, folder, many=True)["outcome"] == "exact").sum())
    aim("replay.right_verdicts_of_10000", exact, ">=", 10_000, form=".0f")


def libraries(folder: Path) -> None:
    """The same answers where another version of a library computes."""
    from bench.replay_rows import expected_of

    sound = expected_of(folder).filter(pl.col("outcome") == "exact", pl.col("kind") != "many")
    for name, wanted in LIBRARIES.items():
        place = (HOME / "libraries" / wanted.replace("=", "-")).absolute()
        if not place.is_dir() and (why := _installed(wanted, place, dependencies=name == "polars")):
            print(f"aim  replay.right_verdicts.other_{name}  not run: {wanted} could not be installed ({why})")
            continue
        out = folder / f"replayed-{name}.parquet"
        with step(f"the thousand, replayed with {wanted}"):
            done = subprocess.run(
                [sys.executable, "-m", "bench.replay_rows", folder, out],
                env=environment_of(folder, place),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            print(f"  it ended with {done.returncode}: {done.stderr[-2000:]}")
            aim(f"replay.right_verdicts.other_{name}", 0, ">=", sound.height)
            continue
        found = sound.join(pl.read_parquet(out), on=["id", "arm"], how="left", suffix="_found")
        other = pl.col("other_inputs").fill_null(value=False) | (pl.col("off").fill_null(0.0) > 0)
        far = pl.col("off").fill_null(0.0) > TOLERANCE
        must = (
            pl.when(~other)
            .then(pl.lit("exact"))
            .when(far)
            .then(pl.lit("diverged"))
            .otherwise(pl.lit("within_tolerance"))
        )
        cause = pl.when(other).then(pl.lit("environment"))
        # For an answer that was given before nothing is computed, and nothing need be told.
        computed = pl.col("other_inputs").is_not_null() & (pl.col("source") != "cached")
        noted = ~computed | pl.col("notes").str.contains(name) | pl.col("reason").str.contains(name)
        right = (pl.col("outcome_found") == must) & pl.col("cause_found").eq_missing(cause) & noted
        found = found.with_columns(must.alias("must"), cause.alias("must_cause"), right.alias("right"))
        counted = found.group_by("must", "must_cause", "outcome_found", "cause_found").agg(
            pl.len(), pl.col("right").sum(), pl.col("reason", "notes").first()
        )
        print("\n| must be | found | rows | right |\n|---|---|---|---|")
        for row in counted.sort("must", "outcome_found").iter_rows(named=True):
            told = f"{_told(row['must'], row['must_cause'])} | {_told(row['outcome_found'], row['cause_found'])}"
            print(f"| {told} | {row['len']} | {row['right']} |")
            if row["right"] < row["len"]:
                print(f"  wrong: {row['reason']} ({row['notes']})")
        print()
        aim(f"replay.right_verdicts.other_{name}", int(found["right"].sum()), ">=", found.height)


def flipped(folder: Path) -> None:
    """One bit at a time."""
    from bench.replay_flips import flips

    with step("single bits and values, flipped"):
        found = flips(folder)
    print("\n| where | flipped | found and named |\n|---|---|---|")
    for where, count in Counter(each.where for each in found).items():
        print(f"| {where} | {count} | {sum(each.found for each in found if each.where == where)} |")
    for each in found:
        if not each.found:
            print(f"  not found: {each.where}, {each.what}: {each.said[:400]}")
    print()
    aim("replay.flips_found", sum(each.found for each in found), ">=", len(found))


def reproduced(folder: Path) -> None:
    """The first model, made again from a fresh clone of the checkout and of the domain as it was then."""
    from bench.replay_rows import world_of
    from mlplatform.registry.candidate import bundle_of
    from mlplatform.registry.ledger import Ledger

    platform, _ = world_of(folder)
    first = bundle_of(platform, Ledger(platform).entries(f"{NAME}/{MODEL}")[0].to_manifest)
    clone, package = folder / "clone", folder / "clone-of-domain"
    for each in (clone, package):
        shutil.rmtree(each, ignore_errors=True)
    with step(f"{first.manifest.model_version} made again in a fresh clone"):
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, clone], check=True)
        subprocess.run(["git", "-C", clone, "checkout", "--quiet", str(first.manifest.record.commit)], check=True)
        changes = first.folder / "uncommitted.diff"
        if changes.is_file() and changes.stat().st_size:
            print("  the checkout held changes that no commit has: they are taken from the bundle")
            subprocess.run(["git", "-C", clone, "apply", "--whitespace=nowarn", changes], check=True)
        clone_domain(folder / "site", package, "v1")
        path = os.pathsep.join([str(clone), str(package)])
        done = _mlplatform(
            "reproduce", f"{NAME}/{MODEL}@{first.manifest.model_version}", "--json", cwd=clone, PYTHONPATH=path
        )
    told: Any = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    steps = told.get("steps", [])
    for each in steps:
        if not each["same"]:
            print(f"  another {each['name']}: {each['expected']}, now {each['found']} {each['note']}")
    if done.returncode or not steps:
        print(f"  exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    made = [bool(each["same"]) for each in steps if not each["condition"]]
    under = [bool(each["same"]) for each in steps if each["condition"]]
    print(f"  made under what is recorded: {sum(under)} of {len(under)}")
    aim("reproduce.exit_code_in_a_fresh_clone", done.returncode, "<=", 0)
    aim("reproduce.stages_the_same", sum(made), ">=", max(1, len(made)))


def _installed(wanted: str, place: Path, *, dependencies: bool) -> str:
    """Install a library into a folder of its own; why it could not be, or nothing."""
    tool = Path(sys.executable).with_name("uv")
    more = [] if dependencies else ["--no-deps"]
    command = [
        str(tool),
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        "--target",
        str(place),
        *more,
        wanted,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(place, ignore_errors=True)
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    return ""


def _mlplatform(*arguments: str, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mlplatform", *arguments]
    told = {**os.environ, **environment}
    return subprocess.run(command, env=told, cwd=cwd, capture_output=True, text=True, check=False)


def _told(outcome: str | None, cause: str | None) -> str:
    return f"{outcome}, {cause}" if cause else str(outcome)


def _spread(seconds: list[float], unit: str) -> str:
    return " – ".join(f"{each:.2f}" for each in (min(seconds), statistics.median(seconds), max(seconds))) + f" {unit}"


PARTS: Mapping[str, Callable[[Path], None]] = {
    "verdicts": verdicts,
    "speed": speed,
    "libraries": libraries,
    "flips": flipped,
    "reproduce": reproduced,
}

if __name__ == "__main__":
    print(f"polars {version('polars')}, xgboost {version('xgboost-cpu')}, numpy {version('numpy')}", flush=True)
    main()
