"""Download of TAU Urban Audio-Visual Scenes 2021: it resumes after an interruption and verifies every file.

    ROOT/archives/<name>.zip.part    what has come so far of an archive
    ROOT/archives/<name>.zip         a whole archive of the right size and MD5
    ROOT/archives/<name>.done        what was unpacked from it: its MD5, then size and path of each file
    ROOT/TAU-urban-audio-visual-scenes-2021-<part>/    the set, in its official layout

Each complete file is renamed into its place, so the process can be killed at any time and started again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from avsc_e2e.data.download.archives import KINDS, Archive
from avsc_e2e.data.download.job import Job
from avsc_e2e.data.download.plan import Progress, folder_of_set, plan_download
from avsc_e2e.durable import alone
from avsc_e2e.errors import AvscError


def download(
    root: str | os.PathLike[str],
    archives: Sequence[Archive],
    *,
    base_url: str = "",
    keep: bool = False,
    parallel: int = 4,
    retries: int = 8,
    pause: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Download, verify and unpack archives below `root`, and return the folder of the set.

    `base_url` replaces the published address; an archive's name is appended to it. `keep` leaves the archives in
    ROOT/archives. A broken connection is opened again up to `retries` times in a row without new data, after a pause
    that starts at `pause` seconds and doubles. `progress` is called twice a second. Raises AvscError if the disk, the
    server or an archive fails, after all other archives are finished.
    """
    for archive in archives:
        if not re.fullmatch(r"[\w-][\w.-]*\.zip", archive.name):
            raise AvscError(f"{archive.name!r} is no name of a zip archive")
        if urlsplit(archive.url(base_url)).scheme not in ("http", "https"):
            raise AvscError(f"base URL {base_url!r}: give one that starts with http:// or https://")
    if not archives:
        raise AvscError(f"no archives to fetch: give one of the kinds {', '.join(KINDS)}")
    plan = plan_download(root, archives, keep=keep, parallel=parallel)
    if plan.needed > plan.free:
        raise AvscError(f"{plan}: free some, give a root on another disk, or fetch fewer kinds of archives at a time")
    folder = plan.root / "archives"
    with alone(folder):
        job = Job(plan, base_url, keep, retries, pause)
        job.run(parallel, progress)
    return folder_of_set(plan.root, archives[0].part)
