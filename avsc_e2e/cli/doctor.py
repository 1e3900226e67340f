"""avsc doctor: a report on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from avsc_e2e.cli.parsing import Positional


def doctor(folder: Annotated[Path, Positional] = Path(".")) -> int:
    """Report what this machine has for training and prediction, what will be slow, and how to improve it.

    Exit status 1 if something that the library needs is missing.

    Args:
        folder: Folder for runs and stores, whose disk is checked.
    """
    from avsc_e2e.doctor import examine, table

    findings = examine(folder)
    print(table(findings))
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0
