"""A script without `if __name__ == "__main__"` starts worker processes all the same."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

PLAIN = """
from avsc_e2e.data.store.prepare import Options, prepare

print("begins")
print(prepare("data", "store", Options(short_side=64, rate=2), workers=2, shard_size=1).decoded, "decoded")
"""
CLIPS = """
from avsc_e2e.data.dataset import ClipDataset, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.sets.corpus import read_corpus


def clips(transform):
    corpus = read_corpus("data", validation=0.0, test=0.0)
    found = ClipDataset(corpus.train, corpus.classes, Sampling(sample_rate=16000, short_side=64), transform)
    return list(loader(found, 4, shuffle=False, workers=1))
"""
UNGUARDED = (
    CLIPS
    + """
print(len(clips(None)[0].file), "clips")
"""
)
GUARDED = (
    CLIPS
    + """
class Silence:
    def __call__(self, clip):
        return clip._replace(audio=0 * clip.audio)


if __name__ == "__main__":
    print(float(clips(Silence())[0].audio.abs().max()))
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    for scene in ("high", "low"):
        (folder / "data" / scene).mkdir(parents=True)
        for number in range(2):
            samples = np.random.default_rng((number, len(scene))).normal(size=16000) / 10
            soundfile.write(folder / "data" / scene / f"{scene}{number}.wav", samples, 16000)
    return folder


@pytest.mark.parametrize(
    ("text", "printed"),
    [(PLAIN, "begins\n4 decoded\n"), (UNGUARDED, "4 clips\n"), (GUARDED, "0.0\n")],
    ids=["prepare", "loader", "a transform of the script's own"],
)
def test_scripts_run_once(folder, text, printed):
    (folder / "script.py").write_text(text)
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True)
    # On a busy machine Python's own tracker may warn of a semaphore at the end; a script that ran twice fails.
    said = [line for line in done.stderr.splitlines() if "resource_tracker" not in line]
    assert (done.returncode, said, done.stdout) == (0, [], printed)
