"""avsc look: a page about a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from avsc_e2e.cli.parsing import Positional
from avsc_e2e.cli.progress import progress


def look(
    data: Annotated[Path, Positional],
    out: Path = Path("look.html"),
    examples: int = 4,
    fast: bool = False,
) -> None:
    """Make a page about a data set: contents of each class, frames and spectrograms, and suspicious files.

    Args:
        data: Class folders, a table of files, or a folder in the layout of TAU Urban Audio-Visual Scenes 2021.
        out: HTML page to write; it needs no other file.
        examples: Number of recordings to show for each class, from different sources if there are enough.
        fast: Check names and headers only; do not decode all media.
    """

    from avsc_e2e.survey.page import write_survey
    from avsc_e2e.survey.survey import look

    found = look(data, examples=examples, fast=fast, progress=progress("checking"))
    hours = sum(one.hours for one in found.classes)
    print(f"{data}: {len(found.classes)} classes, {hours:.2f} hours, {len(found.check.problems)} problems")
    print(f"page: {write_survey(found, out)}")
