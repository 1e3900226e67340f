"""A small city of drawn frames and synthesised audio, in the layout of TAU Urban Audio-Visual Scenes 2021.

The whole library runs on it without the real set. Each scene has one of six looks and one of six kinds of audio; some
scenes share a look and others share the audio, but no two share both (`REFERENCE`). So a perfect classifier of video
alone, or of audio alone, is right in six scenes of ten, and a perfect classifier of both is always right. Scenes that
share a look are drawn by the same code from the same distribution. City and location change colours, layout, light,
timbre, loudness, reverberation and the balance of the two channels.

Every random draw is keyed by (seed, scene, location, clip), so neither the order of rendering nor the number of
processes changes a byte. Each worker process imports this module, so it does not import torch.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile
from numpy.random import Generator, SeedSequence
from PIL import Image

from avsc_e2e.clip import SCENES
from avsc_e2e.errors import AvscError
from avsc_e2e.processes import without_main
from avsc_e2e.toycity.audio import SAMPLE_RATE, synthesise
from avsc_e2e.toycity.image import draw


class Appearance(NamedTuple):
    """What a scene is drawn and synthesised as."""

    look: str
    audio: str


REFERENCE = {
    "airport": Appearance("hall", "announcements"),
    "bus": Appearance("carriage", "engine"),
    "metro": Appearance("carriage", "rail"),
    "metro_station": Appearance("platform", "rail"),
    "park": Appearance("park", "people"),
    "public_square": Appearance("square", "people"),
    "shopping_mall": Appearance("hall", "music"),
    "street_pedestrian": Appearance("street", "people"),
    "street_traffic": Appearance("street", "engine"),
    "tram": Appearance("carriage", "electric"),
}
"""Look and audio of each scene: six of each, and every pair is unique."""

CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "milan", "paris", "prague", "stockholm", "vienna")
"""The cities of the development set; each has its own colours and timbres."""

_MARKER = "toycity.json"
_RENDERING = 1  # raise it with any change to the frames or the audio, so that no folder holds a mixture


class _Job(NamedTuple):
    """One clip to render."""

    scene: str
    city: str
    location: int
    clip: int
    segment: int
    part: str

    @property
    def name(self) -> str:
        return f"{self.scene}-{self.city}-{self.location}-{self.segment}"


@dataclass(frozen=True)
class ToyCity:
    """Settings of a toy city; `render` writes it.

    Raises:
        AvscError: a setting is out of its range.
    """

    train_locations: int = 8
    """Locations of each scene in the training set."""
    test_locations: int = 3
    """Locations of each scene in the test set, none of them in the training set."""
    clips: int = 1
    """Recordings at each location."""
    duration: float = 10.0
    """Seconds of a recording; 10 in the real set."""
    height: int = 144
    """Pixels, even."""
    width: int = 192
    """Pixels, even."""
    frame_rate: int = 10
    """Frames per second."""
    seed: int = 0
    """Another seed is another city."""

    def __post_init__(self):
        for name in ("train_locations", "test_locations", "clips", "frame_rate"):
            if getattr(self, name) < 1:
                raise AvscError(f"{name}={getattr(self, name)} of the toy city is too small: give 1 or more")
        for name in ("height", "width"):
            if getattr(self, name) < 32 or getattr(self, name) % 2:
                raise AvscError(f"{name}={getattr(self, name)} of the toy city: give an even number from 32 up")
        if not 0.5 <= self.duration <= 600:
            raise AvscError(f"duration={self.duration} of the toy city: give 0.5 to 600 seconds")
        if self.seed < 0:
            raise AvscError(f"seed={self.seed} of the toy city is negative: give 0 or more")

    def render(
        self, root: Path | str, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write the city into the folder `root`; what an earlier, interrupted call wrote is kept.

        Args:
            root: Folder, new, empty, or of a city of the same settings.
            workers: Processes; by default one for each core, fewer for a small city. 1 renders in this one.
            progress: Called with (clips finished, all clips) at the start and after each clip.

        Raises:
            AvscError: `root` holds something else or cannot be written, or a worker process died.
        """
        root = Path(root)
        if "libx264" not in av.codecs_available:
            raise AvscError("the installed PyAV cannot write H.264: install the package av from PyPI, which can")
        try:
            self._render(root, workers, progress)
        except (OSError, soundfile.SoundFileError) as error:
            raise AvscError(f"{root}: cannot be written ({error}); free the disk or choose another folder") from error

    def _render(self, root: Path, workers: int | None, progress: Callable[[int, int], None] | None) -> None:
        _claim(root, asdict(self))
        jobs = _jobs(self)
        pending = [job for job in jobs if not all(path.exists() for path in _paths(root, job))]
        finished = len(jobs) - len(pending)
        if progress:
            progress(finished, len(jobs))
        for _ in _run(self, root, pending, workers):
            finished += 1
            if progress:
                progress(finished, len(jobs))
        _write_lists(root, jobs)


def _jobs(settings: ToyCity) -> list[_Job]:
    """All clips, by scene and location. A location's number does not depend on how many clips each has."""
    jobs = []
    for index, scene in enumerate(SCENES):
        for place in range(settings.train_locations + settings.test_locations):
            city = CITIES[(place + 3 * index) % len(CITIES)]
            location = place * len(SCENES) + index
            part = "train" if place < settings.train_locations else "test"
            for clip in range(settings.clips):
                segment = location * settings.clips + clip
                jobs.append(_Job(scene, city, location, clip, segment, part))
    return jobs


def _paths(root: Path, job: _Job) -> tuple[Path, Path]:
    return root / "audio" / f"{job.name}.wav", root / "video" / f"{job.name}.mp4"


def _claim(root: Path, settings: dict[str, int | float]) -> None:
    """Make `root` the folder of a city of these settings."""
    settings = {"rendering": _RENDERING, **settings}
    marker = root / _MARKER
    other = f"choose another folder or delete {root}"
    if root.exists() and not root.is_dir():
        raise AvscError(f"{root}: is a file, not a folder for a toy city; choose another folder")
    if marker.exists():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError:
            raise AvscError(f"{marker}: is not the settings of a toy city; {other}") from None
        if found != settings:
            names = sorted(set(found) | set(settings)) if isinstance(found, dict) else []
            differ = ", ".join(
                f"{name}={found.get(name)} there, {settings.get(name)} asked"
                for name in names
                if found.get(name) != settings.get(name)
            )
            raise AvscError(f"{root}: holds a toy city of other settings ({differ}); {other}")
    elif root.exists() and any(root.iterdir()):
        raise AvscError(f"{root}: is not empty and not a toy city; {other}")
    for folder in ("audio", "video", "evaluation_setup"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if not marker.exists():
        with _replacing(marker) as path:
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_lists(root: Path, jobs: list[_Job]) -> None:
    audio_video = ("filename_audio", "filename_video")
    labelled = (*audio_video, "scene_label")
    train = [job for job in jobs if job.part == "train"]
    test = [job for job in jobs if job.part == "test"]
    for file, columns, rows in (
        ("evaluation_setup/fold1_train.csv", labelled, train),
        ("evaluation_setup/fold1_test.csv", audio_video, test),
        ("evaluation_setup/fold1_evaluate.csv", labelled, test),
        ("meta.csv", (*labelled, "identifier"), jobs),
    ):
        with _replacing(root / file) as path, path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
            writer.writerow(columns)
            for job in rows:
                audio, video = (path.relative_to(root).as_posix() for path in _paths(root, job))
                writer.writerow((audio, video, job.scene, f"{job.city}-{job.location}")[: len(columns)])


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, so that no reader sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _run(settings: ToyCity, root: Path, jobs: list[_Job], workers: int | None) -> Iterator[None]:
    if workers is None:  # a process costs about half a second to start, as much as a few clips
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(1, min(cores, len(jobs) // 8))
    if workers < 1:
        raise AvscError(f"workers={workers} of the toy city is too small: give 1 or more")
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            _render_clip(settings, root, job)
            yield
        return
    # Spawned, not forked: the caller may hold threads and a GPU.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"))
    try:
        with without_main():
            futures = [pool.submit(_render_clip, settings, root, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise AvscError(f"{root}: a process that renders the toy city died; give workers=1") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _render_clip(settings: ToyCity, root: Path, job: _Job) -> None:
    audio_path, video_path = _paths(root, job)
    appearance = REFERENCE[job.scene]
    with _replacing(audio_path) as path:
        samples = synthesise(appearance.audio, settings.duration, *_generators(settings, job, 0))
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_24", format="WAV")
    with _replacing(video_path) as path:
        _write_video(path, draw(appearance.look, settings, *_generators(settings, job, 1)), settings)


def _write_video(path: Path, frames: Iterator[Image.Image], settings: ToyCity) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        # A key frame each second, so that a one-second window decodes little that it does not need. No macroblock
        # tree: with B frames it made x264 165 give other bytes for the same frames from call to call.
        tree = {"x264-params": "mbtree=0"}
        options = {"preset": "superfast", "crf": "20", "g": str(settings.frame_rate), **tree}
        stream = container.add_stream("libx264", rate=settings.frame_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        stream.codec_context.thread_count = 1  # the encoder's result depends on its number of threads
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))


def _generator(seed: int, *key: int) -> Generator:
    return np.random.default_rng(SeedSequence(seed, spawn_key=key))


def _generators(settings: ToyCity, job: _Job, modality: int) -> tuple[Generator, Generator, Generator]:
    """Draws of the city, of the location and of the clip."""
    scene = SCENES.index(job.scene)
    return (
        _generator(settings.seed, modality, 0, CITIES.index(job.city)),
        _generator(settings.seed, modality, 1, scene, job.location),
        _generator(settings.seed, modality, 2, scene, job.location, job.clip),
    )
