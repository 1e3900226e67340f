"""The index of a store: every recording is found, and a process keeps next to nothing of it."""

import json
import pickle

import pytest

from avsc_e2e.data.store.index import KEPT, Recordings, ShardIndex
from avsc_e2e.data.store.layout import index_lines
from avsc_e2e.errors import AvscError

COUNT = 3000


def record(number: int) -> dict:
    row = {"file": f"scene/é{number}", "audio": f"scene/{number}.wav", "video": "", "scene": "scene", "location": "x"}
    row |= {"city": "", "part": "train"}
    video = {"offsets": [number] * 50, "sizes": [7] * 50, "end": 10.0}
    rest = {"duration": {"audio": number}, "audio": [number, 1, 1, 1, 16], "next": number + 9, "checksum": 0}
    return {"row": row, "source": {}, "bad": {}, "video": video, **rest}


@pytest.fixture
def recordings(tmp_path):
    indices = []
    for first in range(0, COUNT, 1000):
        path = tmp_path / f"shard-{first}.jsonl"
        path.write_text("".join(json.dumps(record(first + n), ensure_ascii=False) + "\n" for n in range(1000)))
        indices.append(ShardIndex(path, tmp_path / f"shard-{first}.tar", index_lines(path.read_bytes())))
    return Recordings(indices)


def test_every_recording_is_found_where_it_is(recordings):
    assert len(recordings) == COUNT
    for number in (0, 999, 1000, 1001, 2999, 0):
        stored = recordings[f"scene/é{number}"]
        assert stored.audio[0] == number
        assert stored.frames.tolist() == [number] * 50
        assert stored.shard.name == f"shard-{number // 1000 * 1000}.tar"
    assert list(recordings) == [f"scene/é{number}" for number in range(COUNT)]
    assert "scene/é3000" not in recordings
    assert 7 not in recordings
    with pytest.raises(KeyError):
        recordings["scene/é3000"]


def test_a_process_keeps_less_than_a_hundred_bytes_a_recording(recordings):
    for number in range(500):
        recordings[f"scene/é{number}"]
    assert len(recordings._parsed) == KEPT
    sent = pickle.dumps(recordings)  # to a worker
    assert len(sent) < 30 * COUNT
    assert pickle.loads(sent)["scene/é2500"].audio[0] == 2500


def test_an_index_that_changes_is_noticed(recordings, tmp_path):
    path = tmp_path / "shard-1000.jsonl"
    path.write_text("".join(json.dumps(record(2000 - n)) + "\n" for n in range(1, 1001)))
    with pytest.raises(AvscError, match=r"shard-1000\.jsonl: (cannot be read|has changed since it was opened)"):
        recordings["scene/é1001"]
    path.unlink()
    with pytest.raises(AvscError, match="prepare the store again"):
        recordings["scene/é1001"]
