"""avsc submission pack, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from avsc_e2e.cli.parsing import Paths, Positional
from avsc_e2e.errors import AvscError


def pack(
    out: Annotated[Path, Positional],
    runs: Paths,
    people: Path | None = None,
    report: Path | None = None,
    trial: bool = False,
) -> None:
    """Pack up to four trained, evaluated and submitted stages as one challenge submission, and check it.

    Args:
        out: The package, a .zip file, or a folder.
        runs: Folders of the stages, such as runs/zhang_ioa/hybrid.
        people: TOML file with a table [[author]] for each author; without it they are asked for.
        report: PDF of the technical report.
        trial: Take the files of the first output for the evaluation set's, whatever they are.
    """
    from avsc_e2e.evaluation import system_of_run
    from avsc_e2e.submission.package import pack

    systems = [system_of_run(run) for run in runs]
    files = set(systems[0].output.files) if trial and systems else None
    print(f"package: {pack(out, systems, authors_of(people), report, files=files)}")


def check(package: Annotated[Path, Positional], files: Path | None = None) -> int:
    """Check a submission; every violation is listed with its line, and the exit status is 1 if there is any.

    Args:
        package: A package (zip or folder), an .output.csv or a .meta.yaml.
        files: A system output whose files are the evaluation set's, for trials; by default 0.wav to 71999.wav.
    """
    from avsc_e2e.outputs.output import read_output
    from avsc_e2e.submission.package import check, listing

    violations = check(package, set(read_output(files).files) if files else None, report=files is None)
    print(listing(violations) if violations else f"{package}: no violation found")
    return 1 if violations else 0


def authors_of(people: Path | None):
    from avsc_e2e.submission.entry import ask_people, read_people

    if people:
        return read_people(people)
    if not sys.stdin.isatty():
        raise AvscError("--people: name a TOML file with a table [[author]] for each author")
    return ask_people(input)
