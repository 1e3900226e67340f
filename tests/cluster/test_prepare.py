"""Stores that a cluster writes, from folders, tables and URLs: the bytes of those of one machine."""

import shutil
import sys
import tempfile

import pytest
from support import click, flat, write_video

from avsc_e2e.data.store.place import LOCK, Place
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.data.store.shard import Options
from avsc_e2e.errors import AvscError

SMALL = Options(short_side=48, rate=2.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Class folders with six recordings of a second, one of them no video at all."""
    root = tmp_path_factory.mktemp("clips")
    for scene in ("park", "tram"):
        for number in range(3):
            path = root / scene / f"{scene}{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_video(path, [flat(60 + 20 * number)] * 25, sound=click(0.2 * number, 1.0))
    (root / "tram" / "tram2.mp4").write_bytes(b"no video" * 99)
    return root


def contents(store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def test_a_cluster_writes_the_bytes_of_one_machine(cluster, clips, tmp_path):
    local = prepare(clips, tmp_path / "local", SMALL, workers=1, shard_size=1)
    told = []
    spread = prepare(
        clips, tmp_path / "spread", SMALL, shard_size=1, engine="ray", progress=lambda *done: told.append(done)
    )
    assert contents(tmp_path / "spread") == contents(tmp_path / "local")
    assert spread == local
    assert (spread.clips, spread.decoded, len(spread.bad)) == (6, 6, 2)
    assert told[-1] == (6, 6)
    again = prepare(clips, tmp_path / "spread", SMALL, shard_size=1, engine="ray")
    assert again == spread._replace(decoded=0)


def test_urls_of_media_and_store(clips, tmp_path, monkeypatch):
    """A store at a URL, of media behind one, holds what a folder does; times of change are not known. Nothing is left
    in the folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name in ("local", "temporary"):
        (tmp_path / name).mkdir()
    url = f"file://{tmp_path}/remote"
    done = prepare(f"file://{clips}", url, SMALL, workers=1, shard_size=1)
    assert (done.clips, done.decoded, len(done.bad)) == (6, 6, 2)
    prepare(clips, tmp_path / "local", SMALL, workers=1, shard_size=1)
    ours, theirs = contents(tmp_path / "local"), contents(tmp_path / "remote")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours if name.endswith(".tar"))
    store = open_store(url)
    assert store.root == f"file://{clips}"
    assert sorted(store.recordings) == sorted(open_store(tmp_path / "local").recordings)
    assert prepare(f"file://{clips}", url, SMALL, workers=1, shard_size=1).decoded == 0
    (tmp_path / "remote" / "shard-000002.tar").unlink()
    assert prepare(f"file://{clips}", url, SMALL, workers=1, shard_size=1).decoded == 1
    assert contents(tmp_path / "remote") == theirs
    assert not any(path.name.startswith("avsc-prepare") for path in (tmp_path / "temporary").iterdir())


def test_tables_of_urls(clips, tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (pip install 'avsc-e2e[ray]')")
    import pyarrow as arrow

    files = [f"file://{clips}/park/park0.mp4", str(clips / "tram" / "tram0.mp4"), f"file://{clips}/park/absent.mp4"]
    columns = {"file": files, "label": ["park", "tram", "park"], "group": ["a", "b", None]}
    pyarrow.write_table(arrow.table(columns), tmp_path / "files.parquet")
    done = prepare(tmp_path / "files.parquet", tmp_path / "store", SMALL, workers=1)
    assert [(file.rpartition("/")[2], reason) for file, _, reason in done.bad] == [("absent", "no such file")] * 2
    rows = {row.file.rpartition("/")[2]: row for row in open_store(tmp_path / "store").rows()[""]}
    assert (rows["park0"].scene, rows["park0"].location, rows["park0"].video) == ("park", "a", files[0])
    assert rows["tram0"].location == "b"
    pyarrow.write_table(arrow.table({"file": [files[0]] * 2, "label": ["park"] * 2}), tmp_path / "twice.parquet")
    with pytest.raises(AvscError, match=r"twice.parquet: line 3: .* has the same name as line 2: list a recording"):
        prepare(tmp_path / "twice.parquet", tmp_path / "other", SMALL)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(AvscError, match=r"bad\.parquet: cannot be read as Parquet"):
        prepare(tmp_path / "bad.parquet", tmp_path / "other", SMALL)


def test_one_line_for_what_cannot_be(clips, tmp_path, monkeypatch):
    with pytest.raises(AvscError, match="no recordings in sub-folders of their classes"):
        prepare(f"file://{clips}/park", tmp_path / "store", SMALL)
    with pytest.raises(AvscError, match=r"file:///no/where: .*"):
        prepare("file:///no/where", tmp_path / "store", SMALL)
    with pytest.raises(AvscError, match="patience 0"):
        prepare(clips, tmp_path / "store", SMALL, patience=0)
    with pytest.raises(AvscError, match="engine ray: one run for the whole cluster"):
        prepare(clips, tmp_path / "store", SMALL, engine="ray", world=2)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AvscError, match=r"ray is not installed: pip install 'avsc-e2e\[ray\]'"):
        prepare(clips, tmp_path / "store", SMALL, engine="ray")


def test_two_runs_at_one_place(clips, tmp_path):
    url = f"file://{tmp_path}/remote"
    with Place(url).alone():
        assert (tmp_path / "remote" / LOCK).is_file()
        with pytest.raises(AvscError, match="another run is at work there"):
            prepare(clips, url, SMALL, workers=1)
    assert not (tmp_path / "remote" / LOCK).exists()
    (tmp_path / "remote" / LOCK).write_text('{"host": "gone", "process": 1, "time": 1.0}')
    assert prepare(clips, url, SMALL, workers=1).clips == 6
    with Place(tmp_path / "folder").alone(), pytest.raises(AvscError, match="another process is at work there"):
        prepare(clips, tmp_path / "folder", SMALL, workers=1)
    shutil.rmtree(tmp_path / "remote")
