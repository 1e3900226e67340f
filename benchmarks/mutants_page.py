"""docs/mutants.md, from what benchmarks/mutants.py found."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
EQUIVALENT = {
    (one["file"], one["before"], one["after"]): one["reason"]
    for one in tomllib.loads((ROOT / "benchmarks/mutants_equivalent.toml").read_text()).get("mutant", [])
}
"""Mutants that change nothing that a user could see, by their file, lines before and lines after."""


class Trace(NamedTuple):
    """What the tests of a room run, as long as nothing is changed."""

    seconds: dict[str, float]
    """Processor time of each test that passes, with the fixtures that it is the first to need."""
    others: list[str]
    """Tests that do not pass here, such as those of a GPU."""
    lines: dict[str, dict[str, list[str]]]
    """File to line to tests."""
    coverage: dict[str, float]
    """Numbers of statements and branches, and of those that run in the tests' own process."""


def reason(one: dict) -> str:
    """Why a mutant is equivalent, empty where it is not."""
    return EQUIVALENT.get((one["file"], one["before"], one["after"]), "")


def covered(rooms: list[str], known: dict[str, Trace]) -> list[str]:
    """A line for each room: its statements and branches, and the share of them that its tests run."""
    lines = ["| room | statements | run | branches | run |", "|---|---|---|---|---|"]
    for room in [*rooms, "all"]:
        counts = Counter()
        for name in rooms if room == "all" else [room]:
            counts.update(known[name].coverage)
        statements, run = counts["num_statements"], counts["covered_lines"]
        branches, taken = counts["num_branches"], counts["covered_branches"]
        lines.append(
            f"| {room} | {statements} | {100 * run / statements:.0f} % | {branches} | {100 * taken / branches:.0f} % |"
        )
    return lines


def kind(one: dict, when: str = "outcome") -> str:
    """Of an outcome, or of the first one: equivalent, survived or killed."""
    return "equivalent" if reason(one) else "survived" if one.get(when) == "survived" else "killed"


def table(results: list[dict], rooms: list[str], known: dict[str, Trace]) -> list[str]:
    """A line for each room: mutants by outcome, at first and after the tests that were written for survivors."""
    lines = [
        "| room | mutants | equivalent | killed at first | killed now | survive | of those not equivalent |",
        "|---|---|---|---|---|---|---|",
    ]
    for room in [*rooms, "all"]:
        found = [one for one in results if room in (one["room"], "all")]
        first, now = (Counter(kind(one, when) for one in found) for when in ("first", "outcome"))
        real = max(len(found) - now["equivalent"], 1)
        lines.append(
            f"| {room} | {len(found)} | {now['equivalent']} | {first['killed']} | {now['killed']} | {now['survived']} "
            f"| {100 * now['killed'] / real:.0f} % |"
        )
    return lines


def page(
    results: list[dict], sample: int, bugs: list[dict], rooms: list[str], known: dict[str, Trace], seed: int
) -> str:
    """docs/mutants.md."""
    minutes = sum(one["seconds"] for one in results) / 60
    lines = [
        "# Mutation testing",
        "",
        "This page says which one-line bugs the test suite notices. It is for those who change the library or its",
        "tests. `make mutants` writes it: it puts in each bug of `benchmarks/mutants_by_hand.toml` and runs the test",
        "that must notice it; then it draws a seeded sample of mutants with",
        "[cosmic-ray](https://cosmic-ray.readthedocs.io) and runs the tests of each mutant's room.",
        "",
        "## The sample",
        "",
        f"{len(results)} of {sample} mutants, seed {seed}, {minutes:.0f} minutes of processor time. A mutant meets the",
        "tests of its room that run its statement, the quickest first, until one fails. A mutant that takes the tests",
        "far longer than the original counts as killed.",
        "",
        *table(results, rooms, known),
        "",
        "## Coverage",
        "",
        "What the tests of a room run of it in their own process (`make coverage`). Commands and loader workers that",
        "tests start are not counted.",
        "",
        *covered(rooms, known),
    ]
    lines += ["", "## Survivors", "", "| where | before | after | equivalent because |", "|---|---|---|---|"]
    for one in results:
        if one["outcome"] == "survived" or reason(one):
            before, after = (one[key].replace("|", "\\|") for key in ("before", "after"))
            lines.append(f"| `{one['file']}` | `{before}` | `{after}` | {reason(one)} |")
    lines += ["", f"## Bugs put in by hand: {len(bugs)}", "", "| bug | file in `avsc_e2e/` | noticed by, in `tests/` |"]
    lines.append("|---|---|---|")
    for one in bugs:
        by = "`" + one["by"].removeprefix("tests/").replace("|", "\\|") + "`"
        noticed = by if one["by"] else "too slow" if one["outcome"] == "timeout" else "**none**"
        lines.append(
            f"| {one['name'].removeprefix('by hand: ')} | `{one['file'].removeprefix('avsc_e2e/')}` | {noticed} |"
        )
    return "\n".join([*lines, ""])
