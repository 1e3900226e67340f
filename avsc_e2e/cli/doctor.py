"""avsc doctor: what this machine has, and what to mend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from avsc_e2e.cli.parsing import Positional


def doctor(folder: Annotated[Path, Positional] = Path(".")) -> int:
    """Say what this machine has for training and prediction, what will be slow, and how to mend it.

    Exit status 1 when something is missing that the library cannot do without.

    Args:
        folder: Where runs and stores are to lie; its disk is looked at.
    """
    from avsc_e2e.doctor import examine, table

    findings = examine(folder)
    print(table(findings))
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0
