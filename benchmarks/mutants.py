"""Mutation testing: does a room's test suite notice one-line bugs? A seeded sample of cosmic-ray's mutants.

    python benchmarks/mutants.py [--sample 300] [--seed 0] [--rooms outputs transforms] [--write docs/mutants.md]

Every mutant is one change of one operator, number or condition, in a copy of the repository; those of
mutants_by_hand.toml are bugs that a maintainer could introduce. The tests of each room (see [tool.mutants] in
pyproject.toml) run once under coverage, test by test. Then each mutant meets the tests of its room that run its
statement, the quickest first, until one fails or their seconds are used up. A mutant in a type annotation changes
nothing and is not drawn. Results go to a JSON file in the working folder, so a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import deque
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import NamedTuple

import cosmic_ray.plugins
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB
from mutants_page import ROOT, Trace, covered, page, table

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]
IGNORED = shutil.ignore_patterns(".venv", ".git", "__pycache__", "demo", "runs", ".pytest_cache", ".ruff_cache")
HEAVY = (
    "pytorch_lightning timm torchaudio torchvision albumentations audiomentations sklearn scipy.optimize scipy.signal"
)
"""Modules that a worker imports once: every mutant is a fork of it."""
LOOKS, APART, LEAST = 60, 2.0, 3
"""Tests are looked at every two seconds. Those that want the processor in fewer than three of sixty looks count as
dead-locked; on a busy machine they wait for it, and that is no dead lock."""
OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "--tb=line", "--durations=0"]


class Mutant(NamedTuple):
    """A bug that is not put in yet."""

    room: str
    name: str
    file: str
    first: int
    """Its lines, from 1."""
    last: int
    change: tuple
    """Text before and after, or cosmic-ray's operator, its arguments and which of the file's places for it."""
    tests: tuple[str, ...] = ()
    """Those that must notice it; of one that is drawn, those of its room that run its lines."""

    def text(self) -> str:
        """The file with it."""
        source = Path(self.file).read_text()
        if len(self.change) == 2:
            assert source.count(self.change[0]) == 1, f"{self.file}: occurs not once: {self.change[0]}"
            return source.replace(*self.change)
        operator, arguments, occurrence = self.change
        return mutate_code(source, cosmic_ray.plugins.get_operator(operator)(**arguments), occurrence)


traced: dict[str, Trace] = {}
"""Of each room, in a worker."""


def positions(tree: ast.AST) -> set[tuple[int, int]]:
    """(line, column) of every position inside a type annotation, which is never evaluated."""
    found: set[tuple[int, int]] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in filter(None, parts):
            for line in range(part.lineno, part.end_lineno + 1):
                first = part.col_offset if line == part.lineno else 0
                last = part.end_col_offset if line == part.end_lineno else 200
                found.update((line, column) for column in range(first, last + 1))
    return found


def files_of(room: str) -> list[Path]:
    patterns = SETTINGS["rooms"][room]["files"]
    return sorted(path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern))


def drawn(rooms: list[str], sample: int, seed: int, work: Path) -> list[Mutant]:
    """The sample: as many mutants of each room, room after room in turn, so that a part of it is spread over all."""
    columns = []
    for room in rooms if sample else ():
        drawn_before = work / f"sample-{room}-{sample // len(rooms)}-{seed}.json"
        if drawn_before.exists():
            columns.append([Mutant(*one) for one in json.loads(drawn_before.read_text())])
            continue
        files = files_of(room)
        with tempfile.TemporaryDirectory() as folder:
            database = WorkDB(f"{folder}/work.sqlite", WorkDB.Mode.create)
            init(files, database, {})
            found = [item.mutations[0] for item in database.work_items]
            database.close()
        still = {path: positions(ast.parse(path.read_text())) for path in files}
        found = [m for m in found if tuple(m.start_pos) not in still[Path(m.module_path)]]
        found.sort(key=lambda m: (str(m.module_path), m.operator_name, m.occurrence))
        columns.append(
            [
                Mutant(
                    room,
                    f"{m.module_path} {m.operator_name} {m.occurrence}",
                    *(str(m.module_path), m.start_pos[0], m.end_pos[0]),
                    (m.operator_name, m.operator_args or {}, m.occurrence),
                )
                for m in random.Random(seed).sample(found, min(sample // len(rooms), len(found)))
            ]
        )
        drawn_before.write_text(json.dumps(columns[-1]))
    longest = max(map(len, columns), default=0)
    return [column[place] for place in range(longest) for column in columns if place < len(column)]


def by_hand(rooms: list[str]) -> list[Mutant]:
    """Those of mutants_by_hand.toml."""
    found = []
    for one in tomllib.loads(Path(__file__).with_name("mutants_by_hand.toml").read_text())["mutant"]:
        change, path = (one["before"], one["after"]), ROOT / one["file"]
        source = path.read_text() if path.is_file() else ""
        if source.count(one["before"]) != 1:
            print(f"mutants_by_hand.toml: {one['bug']}: its lines are not in {one['file']} (once): mend the entry")
            continue
        above = source.partition(one["before"])[0]
        first = above.count("\n") + 1 + (len(one["before"]) - len(one["before"].lstrip("\n")))
        last = first + one["before"].strip("\n").count("\n")
        tests = tuple(one["tests"])
        found.append(Mutant(one["room"], f"by hand: {one['bug']}", one["file"], first, last, change, tests))
    return [mutant for mutant in found if mutant.room in rooms]


class Chosen:
    """A pytest plugin: only these tests, in this order, after all that are not `known` yet, such as those written since
    the trace; remembers the first that fails."""

    def __init__(self, tests: list[str], known: set[str] | None):
        self.order = {test: place for place, test in enumerate(tests)}
        self.known = known
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list) -> None:
        wanted = [item for item in items if item.nodeid in self.order or self.is_new(item.nodeid)]
        items[:] = sorted(wanted, key=lambda item: self.order.get(item.nodeid, -1))

    def is_new(self, test: str) -> bool:
        return self.known is not None and test not in self.known

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (import)"


class Watched:
    """A pytest plugin: which test runs, for the coverage, and its processor time."""

    def __init__(self, coverage):
        self.coverage, self.seconds, self.failed = coverage, {}, set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.seconds[nodeid] = -self.clock()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid] += self.clock()
        self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)

    @staticmethod
    def clock() -> float:
        return sum(os.times()[:4])


def trace(room: str, out: Path) -> None:
    """Run a room's tests under coverage and write their Trace. The working folder is a copy of the repository."""
    import pytest
    from coverage import Coverage

    files = [str(path) for path in files_of(room)]
    coverage = Coverage(branch=True, include=files, data_file=None)
    watched = Watched(coverage)
    coverage.start()
    pytest.main([option for option in OPTIONS if option != "-x"] + SETTINGS["rooms"][room]["tests"], [watched])
    coverage.stop()
    passed = {test: round(used, 2) for test, used in watched.seconds.items() if test not in watched.failed}
    lines, data = {}, coverage.get_data()
    for path in files:
        contexts = data.contexts_by_lineno(str(Path(path).resolve()))
        lines[path] = {str(line): sorted(set(tests) & set(passed)) for line, tests in contexts.items()}
    with tempfile.TemporaryDirectory() as folder:
        coverage.json_report(outfile=f"{folder}/report.json")
        totals = json.loads(Path(folder, "report.json").read_text())["totals"]
    kinds = ("num_statements", "covered_lines", "num_branches", "covered_branches")
    counted = {kind: totals[kind] for kind in kinds}
    out.write_text(json.dumps(Trace(passed, sorted(watched.failed), lines, counted)._asdict()))


def tests_of(traced: Trace, mutant: Mutant, limit: float) -> list[str]:
    """The tests that run the mutant's statement, or, where an import does, the file; the quickest, within a limit."""
    tree = ast.parse((ROOT / mutant.file).read_text())
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= mutant.last <= n.end_lineno]
    statement = min(around, key=lambda node: node.end_lineno - node.lineno, default=None)  # a decorator lies in none
    lines = traced.lines.get(mutant.file, {})
    first = min(statement.lineno, mutant.first) if statement else mutant.first
    last = statement.end_lineno if statement else mutant.last
    hits = {test for line in range(first, last + 1) for test in lines.get(str(line), [])}
    hits = hits or {test for tests in lines.values() for test in tests} or set(traced.seconds)
    chosen, used = [], 0.0
    for test in sorted(hits, key=lambda test: (traced.seconds[test], test)):
        used += traced.seconds[test]
        if used > limit and chosen:
            break
        chosen.append(test)
    return chosen


def settle(copies: Queue, work: Path, rooms: list[str]) -> None:
    """A worker takes a copy for itself and imports what all tests need."""
    traced.update({room: read_trace(work, room) for room in rooms})
    copy = copies.get()
    os.chdir(copy)
    sys.path.insert(0, copy)
    os.environ |= {"PYTHONPATH": copy, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    sys.dont_write_bytecode = True
    for name in HEAVY.split():
        with suppress(Exception):
            importlib.import_module(name)


def wants_processor(session: int) -> bool:
    """Whether a process of a session runs or waits for a processor or the disk."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] in "RD":
                return True
    return False


def forked(tests: list[str], known: set[str] | None, seconds: float, timeout: float) -> tuple[str, str]:
    """How these tests end in a fork: survived, killed or timeout; and the test that failed."""
    told = Path(f"mutant-{os.getpid()}.txt").resolve()
    child = os.fork()
    if not child:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (round(30 + 5 * seconds), round(60 + 5 * seconds)))
        import pytest

        chosen = Chosen(tests, known)
        status = pytest.main([*OPTIONS, *sorted({test.split("::")[0] for test in tests})], [chosen])
        told.write_text(chosen.failed)
        os._exit(int(status))
    looks: deque[bool] = deque(maxlen=LOOKS)
    status, ends, next_look = None, time.monotonic() + timeout, time.monotonic()
    while status is None and time.monotonic() < ends:
        time.sleep(0.05)
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        if time.monotonic() > next_look:
            next_look += APART
            looks.append(wants_processor(child))
            if len(looks) == LOOKS and sum(looks) < LEAST:
                break
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    failed = told.read_text() if told.exists() else ""
    told.unlink(missing_ok=True)
    if status is None or os.WIFSIGNALED(status):
        return "timeout", failed
    return {0: "survived", 5: "no test"}.get(os.WEXITSTATUS(status), "killed"), failed


def run(mutant: Mutant, limit: float) -> dict:
    """One mutant in the worker's copy: its outcome, the changed lines and the processor time it took."""
    began = sum(os.times()[:4])
    if mutant.tests:
        tests, known, seconds = list(mutant.tests), None, limit
    else:
        room = traced[mutant.room]
        tests, known = tests_of(room, mutant, limit), {*room.seconds, *room.others}
        seconds = sum(room.seconds[test] for test in tests)
    path, before, after = Path(mutant.file), Path(mutant.file).read_text(), mutant.text()
    try:
        path.write_text(after)
        outcome, by = forked(tests, known, seconds, SETTINGS["timeout"])
    finally:
        path.write_text(before)
    old, new = before.splitlines(), after.splitlines()
    return {
        **{key: getattr(mutant, key) for key in ("room", "name", "file")},
        "line": mutant.first,
        "before": " ".join(line.strip() for line in old if line not in new),
        "after": " ".join(line.strip() for line in new if line not in old),
        "outcome": outcome,
        "by": by,
        "tests": len(tests),
        "seconds": round(sum(os.times()[:4]) - began, 1),
    }


def copy_of(number: int, base: Path) -> str:
    copy = base / f"copy{number}" / ROOT.name
    if copy.parent.exists():
        shutil.rmtree(copy.parent)
    shutil.copytree(ROOT, copy, ignore=IGNORED)
    shared = ROOT.parent / "shared"
    if shared.exists():
        (copy.parent / "shared").symlink_to(shared.resolve())
    return str(copy)


def traces(rooms: list[str], base: Path, processes: int) -> dict[str, Trace]:
    """The Trace of each room, run where it is not in the working folder yet."""
    missing = [room for room in rooms if not (base / f"trace-{room}.json").exists()]
    running: list[subprocess.Popen] = []
    for room in missing:
        copy = copy_of(f"-{room}", base)
        while sum(process.poll() is None for process in running) >= processes:
            time.sleep(1)
        print(f"coverage of {room}", flush=True)
        command = [sys.executable, f"{copy}/benchmarks/mutants.py", "--trace", str(base / f"trace-{room}.json")]
        with Path(base, f"trace-{room}.log").open("w") as log:
            running.append(
                subprocess.Popen(
                    [*command, "--rooms", room], cwd=copy, stdout=log, env=os.environ | {"PYTHONPATH": copy}
                )
            )
    for process in running:
        assert process.wait() == 0, process.args
    return {room: read_trace(base, room) for room in rooms}


def read_trace(base: Path, room: str) -> Trace:
    return Trace(**json.loads((base / f"trace-{room}.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=SETTINGS["sample"])
    parser.add_argument("--seed", type=int, default=SETTINGS["seed"])
    parser.add_argument("--rooms", nargs="+", default=list(SETTINGS["rooms"]), choices=list(SETTINGS["rooms"]))
    parser.add_argument("--seconds", type=int, default=SETTINGS["seconds"], help="of tests for each mutant")
    parser.add_argument("--no-bugs", action="store_true", help="the sample alone")
    parser.add_argument("--coverage", action="store_true", help="branches by room, and no mutant")
    parser.add_argument("--again", action="store_true", help="rerun what survived, such as after a new test")
    parser.add_argument("--processes", type=int, default=2, help="0: none, what has run is written")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "mutants")
    parser.add_argument("--write", type=Path, help="page to write, such as docs/mutants.md")
    parser.add_argument("--trace", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trace:
        return trace(options.rooms[0], options.trace)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.coverage:
        return print("\n".join(covered(options.rooms, traces(options.rooms, options.work, options.processes))))
    log = options.work / "results.json"
    results: dict[str, dict] = json.loads(log.read_text()) if log.exists() else {}
    sample, bugs = drawn(options.rooms, options.sample, options.seed, options.work), by_hand(options.rooms)
    bugs = [] if options.no_bugs else bugs
    settled = {name for name, one in results.items() if not (options.again and one["outcome"] == "survived")}
    todo = [mutant for mutant in (*bugs, *sample) if mutant.name not in settled]
    print(f"{len(sample)} mutants and {len(bugs)} by hand, {len(todo)} to run", flush=True)
    known = traces(options.rooms, options.work, options.processes) if sample else {}
    todo = todo if options.processes else []
    context = get_context("spawn")
    folders = context.Queue()
    for number in range(options.processes):
        folders.put(copy_of(number, options.work))
    with ProcessPoolExecutor(
        max(options.processes, 1), context, settle, (folders, options.work, list(known))
    ) as workers:
        jobs = [workers.submit(run, mutant, options.seconds) for mutant in todo]
        for done, job in enumerate(as_completed(jobs), 1):
            if job.exception():
                print(f"{done}/{len(todo)} cannot be put in: {job.exception()!r}", flush=True)
                continue
            one = job.result()
            one["first"] = results.get(one["name"], one).get("first", one["outcome"])
            results[one["name"]] = one
            log.write_text(json.dumps(results, indent=1))
            print(
                f"{done}/{len(todo)} {one['outcome']:<9} {one['seconds']:>6.1f} s {one['file']}:{one['line']}"
                f"  {one['before'][:60]}  ->  {one['after'][:60]}  {one['by']}",
                flush=True,
            )
    found, put_in = ([results[m.name] for m in group if m.name in results] for group in (sample, bugs))
    if options.write:
        options.write.write_text(page(found, len(sample), put_in, options.rooms, known, options.seed))
    print("\n".join(table(found, options.rooms, known) if known else []))


if __name__ == "__main__":
    main()
