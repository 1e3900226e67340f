"""avsc data render, download, check, prepare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from avsc_e2e.cli.parsing import For, Positional
from avsc_e2e.cli.progress import progress
from avsc_e2e.errors import AvscError


def render(
    root: Annotated[Path, Positional],
    train_locations: int = 8,
    test_locations: int = 3,
    clips: int = 1,
    duration: float = 10.0,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Render a toy city in the layout of TAU Urban Audio-Visual Scenes 2021.

    Args:
        root: Folder to write it to.
        train_locations: Locations of each scene in the training set.
        test_locations: Locations of each scene in the test set, none of them in the training set.
        clips: Recordings of each location.
        duration: Length of a recording, seconds.
        seed: Seed of all random draws; another seed gives another city.
        workers: Number of processes; 0: one for each core.
    """
    from avsc_e2e.toycity.city import ToyCity

    city = ToyCity(
        train_locations=train_locations, test_locations=test_locations, clips=clips, duration=duration, seed=seed
    )
    city.render(root, workers=workers or None, progress=progress("rendering"))
    print(f"{root}: {10 * clips * (train_locations + test_locations)} recordings of {duration:g} s")


def download(
    root: Annotated[Path, Positional],
    part: Literal["development", "evaluation"] = "development",
    base_url: str = "",
    keep: bool = False,
    parallel: int = 4,
    plan: bool = False,
) -> None:
    """Download TAU Urban Audio-Visual Scenes 2021, verify and unpack it; resumes an interrupted download.

    Args:
        root: Folder for the data set; each part gets a folder of its own inside.
        part: Development set (108 GB) or evaluation set (61 GB).
        base_url: Address of the archives; empty: the data set's page at Zenodo.
        keep: Keep the archives after unpacking.
        parallel: Number of archives to download at the same time.
        plan: Only print what would be downloaded and the disk space needed.
    """
    from avsc_e2e.data.download.archives import list_archives
    from avsc_e2e.data.download.download import download
    from avsc_e2e.data.download.plan import Progress, plan_download

    archives = list_archives(part)
    print(plan_download(root, archives, keep=keep, parallel=parallel), flush=True)
    if plan:
        return

    bar = progress("fetching", unit="B")

    def show(now: Progress) -> None:
        bar(now.done, now.total, f"{now.finished} of {now.archives} archives; {', '.join(now.at_work)}")

    where = download(root, archives, base_url=base_url, keep=keep, parallel=parallel, progress=show)
    print(f"{where}: complete; `avsc data check {where}` checks its files")


def check(
    root: Annotated[Path, Positional],
    fast: bool = False,
    part: Literal["", "development", "evaluation"] = "",
    list_to: Path | None = None,
    group: str = "",
    groups: str = "",
    test: float = 0.2,
    validation: float = 0.1,
) -> int:
    """Check a data set for everything that training and evaluation would refuse or leave out; exit status 1 if there
    is a problem.

    Args:
        root: Folder of the data set, or FILES.csv with the columns file and label.
        fast: Check names and headers only; do not decode the media.
        part: Part of TAU that the folder holds; empty: detect it.
        list_to: CSV to write every problem to, with its file.
        group: As --data.group of a recipe, for class folders.
        groups: As --data.groups.
        test: As --data.test.
        validation: As --data.validation, a share.
    """
    from avsc_e2e.data.check.check import check

    result = check(
        root,
        fast=fast,
        part=part,
        group=group,
        groups=groups,
        test=test,
        validation=validation,
        progress=progress("checking"),
    )
    print(result.table())
    if result.problems:
        print(result.problem_list())
    if list_to:
        result.write_problems(list_to)
    return 0 if result.ok else 1


def prepare(
    root: Annotated[str, Positional],
    store: Annotated[str, Positional],
    stage: For = "",
    short_side: int = 0,
    rate: float = 0.0,
    quality: int = 95,
    decoder: Literal["auto", "pyav", "decord"] = "auto",
    workers: int = 0,
    engine: Literal["local", "ray"] = "local",
    patience: float = 300.0,
) -> int:
    """Decode a data set once into a store, which reads a clip in about a millisecond; resumes an interrupted run.

    Several machines with a shared folder divide the work by RANK and WORLD_SIZE, which torchrun sets.

    Args:
        root: Folder of the data set, or FILES.csv or FILES.parquet with the columns file and label; or the URL of class
            folders or of such a table.
        store: Folder for the store, or a URL such as s3://bucket/store; pass it to a stage as --data.store.
        stage: Recipe and stage, such as zhang_ioa/hybrid, or FILE.py:STAGE: choose size and rate of the frames by it.
        short_side: Shorter side of a frame, pixels; 0: as the stage of --for needs, or else 256.
        rate: Frames per second, each from the middle of its interval; odd rates include the centres of segments. 0:
            as the stage of --for needs, or else 5.
        quality: JPEG quality of the frames, 1 to 100.
        decoder: Decoder of frames. pyav: exact frames; decord: wrong frames in many files, for comparison; auto: pyav.
        workers: Number of processes; 0: one for each core.
        engine: local: processes of this machine; ray: a task for each shard on the Ray cluster at RAY_ADDRESS, or on
            one started on this machine; its machines must share the folders, or use URLs. Both write the same store.
        patience: Seconds after which a recording that is not decoded yet counts as bad.
    """
    from avsc_e2e.data.store.prepare import prepare
    from avsc_e2e.data.store.shard import DEFAULT

    options = DEFAULT
    if stage:
        from avsc_e2e.cli.targets import StageTarget, target_of
        from avsc_e2e.training.run import store_options

        target = target_of(stage)
        if not isinstance(target, StageTarget):
            raise AvscError(f"--for {stage}: is data; name a stage of a recipe, such as zhang_ioa/hybrid")
        options = store_options(target.load())
        print(f"{stage}: frames of {options.short_side} pixels, {options.rate:g} a second", flush=True)
    options = options._replace(
        short_side=short_side or options.short_side, rate=rate or options.rate, quality=quality, decoder=decoder
    )
    done = prepare(
        root,
        store,
        options,
        workers=workers or max((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1),
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
        engine=engine,
        patience=patience,
        progress=progress("preparing"),
    )
    for file, modality, reason in done.bad:
        print(f"{file}: its {modality} {reason}")
    rest = f", {done.missing} shards are left for other machines" if done.missing else ""
    bad = f", {len({file for file, *_ in done.bad})} of them bad" if done.bad else ""
    print(f"{store}: {done.clips} recordings{bad}, {done.decoded} decoded now, {done.size / 1e9:.2f} GB{rest}")
    return 1 if done.bad else 0
