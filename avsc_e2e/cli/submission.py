"""avsc submission people, pack, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from avsc_e2e.cli.parsing import Paths, Positional
from avsc_e2e.errors import AvscError

if TYPE_CHECKING:
    from avsc_e2e.submission.people import Person


def pack(
    out: Annotated[Path, Positional],
    runs: Paths,
    people: Path | None = None,
    report: Path | None = None,
    trial: bool = False,
) -> None:
    """Pack up to four trained, evaluated and submitted stages as one submission to the challenge, and check it.

    Args:
        out: Package to write, a .zip file or a folder.
        runs: Folders of the stages, such as runs/zhang_ioa/hybrid.
        people: TOML file with the authors (`avsc submission people` prints a template); by default it asks for them.
        report: PDF of the technical report.
        trial: Accept the files of the first output instead of those of the evaluation set.
    """
    authors = authors_of(people)

    from avsc_e2e.challenge import system_of_run
    from avsc_e2e.submission.package import pack

    systems = [system_of_run(run) for run in runs]
    files = set(systems[0].output.files) if trial and systems else None
    print(f"package: {pack(out, systems, authors, report, files=files)}")


def people() -> None:
    """Print a template of the authors' file for --people.

    Use it as `avsc submission people > people.toml`, then fill it in.
    """
    from avsc_e2e.submission.people import TEMPLATE

    print(TEMPLATE, end="")


def check(package: Annotated[Path, Positional], files: Path | None = None) -> int:
    """Check a submission and list every violation with its line; exit status 1 if there is one.

    Args:
        package: Package (zip or folder), .output.csv or .meta.yaml.
        files: For trials: a system output whose files replace those of the evaluation set, 0.wav to 71999.wav.
    """
    from avsc_e2e.outputs.output import read_output
    from avsc_e2e.submission.check import check
    from avsc_e2e.submission.violation import listing

    violations = check(package, set(read_output(files).files) if files else None, report=files is None)
    print(listing(violations) if violations else f"{package}: no violation found")
    return 1 if violations else 0


def authors_of(people: Path | None) -> tuple[Person, ...]:
    """The authors from a file, or asked for at a terminal."""
    from avsc_e2e.submission.people import TEMPLATE_HINT, ask_people, read_people

    if people:
        return read_people(people)
    if not sys.stdin.isatty():
        raise AvscError(f"--people: give a TOML file with the authors; {TEMPLATE_HINT}")
    return ask_people(input)
