"""Mutation testing: does a room's test suite notice one-line bugs? A seeded sample of cosmic-ray's mutants.

    python benchmarks/mutants.py [--sample 300] [--seed 0] [--rooms outputs transforms] [--write docs/mutants.md]

Every mutant is one change of one operator, number or condition, in a copy of the repository. The tests of the mutant's
room (see [tool.mutants] in pyproject.toml) run until one fails. A mutant in a type annotation changes nothing and is
not drawn. The result of each mutant goes to a JSON file beside the copy, so a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]
IGNORED = shutil.ignore_patterns(".venv", ".git", "__pycache__", "demo", "runs", ".pytest_cache", ".ruff_cache")


def annotations(path: Path) -> set[tuple[int, int]]:
    """(line, column) of every position inside a type annotation, which is never evaluated."""
    found: set[tuple[int, int]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in filter(None, parts):
            for line in range(part.lineno, part.end_lineno + 1):
                first = part.col_offset if line == part.lineno else 0
                last = part.end_col_offset if line == part.end_lineno else 200
                found.update((line, column) for column in range(first, last + 1))
    return found


def drawn(rooms: list[str], sample: int, seed: int) -> list[tuple[str, MutationSpec]]:
    """The sample: as many mutants of each room, in a fixed order."""
    chosen = []
    for room in rooms:
        files = sorted(path for pattern in SETTINGS["rooms"][room]["files"] for path in ROOT.glob(pattern))
        with tempfile.TemporaryDirectory() as folder:
            database = WorkDB(f"{folder}/work.sqlite", WorkDB.Mode.create)
            init([path.relative_to(ROOT) for path in files], database, {})
            mutations = [item.mutations[0] for item in database.work_items]
            database.close()
        still = {path.relative_to(ROOT): annotations(path) for path in files}
        mutations = [m for m in mutations if tuple(m.start_pos) not in still[Path(m.module_path)]]
        mutations.sort(key=lambda m: (str(m.module_path), m.operator_name, m.occurrence))
        share = sample // len(rooms)
        chosen += [(room, m) for m in random.Random(seed).sample(mutations, min(share, len(mutations)))]
    return chosen


def name_of(mutation: MutationSpec) -> str:
    return f"{mutation.module_path} {mutation.operator_name} {mutation.occurrence}"


def run(job: tuple[str, MutationSpec, str]) -> dict:
    """One mutant in a copy of the repository: its outcome, the changed line and the seconds it took."""
    room, mutation, copy = job
    os.chdir(copy)
    began = time.monotonic()
    tests = " ".join(SETTINGS["rooms"][room]["tests"])
    command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider --no-header {tests}"
    result = mutate_and_test([mutation], command, SETTINGS["timeout"])
    lines = [line for line in (result.diff or "").splitlines() if line[:1] in "+-" and line[:3] not in ("---", "+++")]
    outcome = result.test_outcome.value if result.test_outcome else "none"
    return {
        "room": room,
        "name": name_of(mutation),
        "file": str(mutation.module_path),
        "line": mutation.start_pos[0],
        "before": " ".join(line[1:].strip() for line in lines if line[0] == "-"),
        "after": " ".join(line[1:].strip() for line in lines if line[0] == "+"),
        "outcome": outcome,
        "seconds": round(time.monotonic() - began, 1),
    }


def copies(count: int, base: Path) -> list[str]:
    made = []
    for number in range(count):
        copy = base / f"copy{number}" / ROOT.name
        if copy.parent.exists():
            shutil.rmtree(copy.parent)
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        shared = ROOT.parent / "shared"
        if shared.exists():
            (copy.parent / "shared").symlink_to(shared.resolve())
        made.append(str(copy))
    return made


def page(results: list[dict], rooms: list[str], sample: int, seed: int) -> str:
    """docs/mutants.md."""
    equivalent: dict[str, str] = SETTINGS.get("equivalent", {})
    hours = sum(one["seconds"] for one in results) / 3600
    lines = [
        "# Mutation testing",
        "",
        "This page says how many one-line bugs the test suite notices. It is for those who change the library or its",
        "tests. `make mutants` draws a seeded sample of mutants with [cosmic-ray](https://cosmic-ray.readthedocs.io),",
        "runs the tests of each mutant's room, and writes this page.",
        "",
        f"{len(results)} mutants, seed {seed}, {hours:.1f} hours of one core.",
        "",
        "| room | mutants | killed | survived | equivalent | killed of those that are not equivalent |",
        "|---|---|---|---|---|---|",
    ]
    rows = [*((room, [one for one in results if one["room"] == room]) for room in rooms), ("all", results)]
    for room, found in rows:
        if not found:
            continue
        count = Counter(
            "equivalent" if one["name"] in equivalent else "survived" if one["outcome"] == "survived" else "killed"
            for one in found
        )
        real = len(found) - count["equivalent"]
        lines.append(
            f"| {room} | {len(found)} | {count['killed']} | {count['survived']} | {count['equivalent']} "
            f"| {100 * count['killed'] / max(real, 1):.0f} % |"
        )
    lines += ["", "## Survivors", "", "| where | before | after | equivalent because |", "|---|---|---|---|"]
    for one in results:
        if one["outcome"] == "survived":
            before, after = (one[key].replace("|", "\\|") for key in ("before", "after"))
            reason = equivalent.get(one["name"], "")
            lines.append(f"| {one['file']}:{one['line']} | `{before}` | `{after}` | {reason} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=SETTINGS["sample"])
    parser.add_argument("--seed", type=int, default=SETTINGS["seed"])
    parser.add_argument("--rooms", nargs="+", default=list(SETTINGS["rooms"]), choices=list(SETTINGS["rooms"]))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "mutants")
    parser.add_argument("--write", type=Path, help="page to write the table to, such as docs/mutants.md")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    log = options.work / "results.json"
    results: dict[str, dict] = json.loads(log.read_text()) if log.exists() else {}
    sample = drawn(options.rooms, options.sample, options.seed)
    todo = [(room, mutation) for room, mutation in sample if name_of(mutation) not in results]
    print(f"{len(sample)} mutants, {len(todo)} to run", flush=True)
    free = copies(options.processes, options.work)
    with (
        get_context("spawn").Pool(options.processes, maxtasksperchild=None) as pool,
        ThreadPoolExecutor(options.processes) as threads,
    ):

        def work(item: tuple[str, MutationSpec]) -> dict:
            copy = free.pop()
            try:
                return pool.apply(run, ((*item, copy),))
            finally:
                free.append(copy)

        for done, one in enumerate(threads.map(work, todo), 1):
            results[one["name"]] = one
            log.write_text(json.dumps(results, indent=1))
            print(
                f"{done}/{len(todo)} {one['outcome']:<9} {one['seconds']:>6.1f} s {one['file']}:{one['line']}"
                f"  {one['before'][:60]}  ->  {one['after'][:60]}",
                flush=True,
            )
    found = [results[name_of(mutation)] for _, mutation in sample]
    text = page(found, options.rooms, options.sample, options.seed)
    if options.write:
        options.write.write_text(text)
    print(text[text.index("| room") : text.index("## Survivors")])


if __name__ == "__main__":
    main()
