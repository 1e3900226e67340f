"""Functions for processes that may die, and a soundfile whose decoder crashes."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

CRASHING = """
import importlib.machinery, os, sys
here = os.path.dirname(__file__)
spec = importlib.machinery.PathFinder.find_spec("soundfile", [path for path in sys.path if path != here])
exec(compile(open(spec.origin).read(), spec.origin, "exec"))
_Real = SoundFile
class SoundFile(_Real):
    def __init__(self, file, *args, **options):
        if b"deadly" in os.fsencode(file):
            os.abort()
        super().__init__(file, *args, **options)
"""


def crash_over_deadly_files(folder: Path) -> None:
    """Write a soundfile module that aborts over files with "deadly" in their names, for processes that look for it in
    `folder` first."""
    folder.mkdir()
    (folder / "soundfile.py").write_text(CRASHING)


def act(what: str) -> Iterator[str]:
    """Say so, and do it."""
    yield f"{what} begins"
    if what == "abort":
        os.abort()
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os._exit(3)
    elif what == "allocate":
        bytearray(1 << 36)
    elif what == "stand still":
        time.sleep(60)
    yield f"{what} ends"
