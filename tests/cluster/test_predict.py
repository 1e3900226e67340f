"""Predictions of many recordings in Parquet parts: each recording once, the same from a cluster and after a rerun."""

import json

import numpy as np
import pytest
from support import click, flat, write_video

import avsc_e2e
from avsc_e2e.cli import main
from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.prediction import predict_parts

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (pip install 'avsc-e2e[ray]')")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and a folder of four videos, of which one is none."""
    root = tmp_path_factory.mktemp("parts")
    save_model(create_model("tiny").eval(), root / "model.safetensors", {"recipe": "{}"})
    (root / "media").mkdir()
    for number in range(3):
        frames = [flat(40 * number + i) for i in range(20)]
        write_video(root / "media" / f"{number}.mp4", frames, rate=10, sound=click(0.5, 2.0))
    (root / "media" / "3.mp4").write_bytes(b"no video")
    return root


@pytest.fixture(scope="module")
def local(folder):
    """Its predictions, two recordings a part."""
    done = predict_parts(folder / "model.safetensors", folder / "media", folder / "local", part=2, workers=1)
    assert (done.recordings, done.now, done.windows) == (4, 4, 6)
    assert list(done.errors.values()) == [[str(folder / "media" / "3.mp4")]]
    return folder / "local"


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_parts_hold_what_predict_finds(folder, local):
    assert sorted(contents(local)) == ["part-000000.parquet", "part-000001.parquet", "predictions.json"]
    found = avsc_e2e.predict(folder / "model.safetensors", folder / "media")
    rows = [row for path in sorted(local.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    assert [row["file"] for row in rows] == [one.path for one in found for _ in one.windows or [0]]
    windows = [window for one in found for window in one.windows]
    for row, window in zip(rows, windows, strict=False):
        assert (row["start"], row["end"], row["modalities"]) == (window.start, window.end, "audio+video")
        values = [value for name, value in row.items() if name.startswith("p_")]
        np.testing.assert_allclose(values, window.probabilities, atol=1e-5)
        assert row["scene"] == list(row)[5 + int(np.argmax(values))].removeprefix("p_")
    assert rows[-1] | {"error": ""} == dict.fromkeys(rows[-1]) | {"file": found[3].path, "error": ""}
    assert rows[-1]["error"] == found[3].error


def test_a_rerun_predicts_what_is_missing(folder, local, tmp_path):
    before = contents(local)
    done = predict_parts(folder / "model.safetensors", folder / "media", local, part=2, workers=1)
    assert (done.recordings, done.now, len(done.errors)) == (4, 0, 1)
    (local / "part-000001.parquet").unlink()
    done = predict_parts(folder / "model.safetensors", folder / "media", f"file://{local}", part=2, workers=1)
    assert (done.recordings, done.now) == (4, 2)
    assert contents(local) == before
    plan = json.loads(before["predictions.json"])["parts"]
    assert [len(part) for part in plan] == [2, 2]


def test_a_full_disk_is_one_line_and_a_rerun_writes_the_rest(folder, local, tmp_path, monkeypatch):
    import errno
    import os

    files, flush = [], os.fsync

    def full(descriptor):
        files.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if "part-000001" in files[-1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    model, media = folder / "model.safetensors", folder / "media"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            AvscError, match=r"out: cannot be written \(No space left on device\): mend that and run it"
        ):
            predict_parts(model, media, tmp_path / "out", part=2, workers=1)
    assert "part-000000.parquet" in contents(tmp_path / "out")
    done = predict_parts(model, media, tmp_path / "out", part=2, workers=1)
    assert (done.recordings, done.now) == (4, 2)
    assert contents(tmp_path / "out") == contents(local)


def test_a_cluster_writes_the_bytes_of_one_machine(cluster, folder, local, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray sets it for tasks of one core
    urls = [f"file://{path}" for path in sorted((folder / "media").iterdir())]
    (tmp_path / "list.csv").write_text("file\n" + "".join(f"{folder}/media/{n}.mp4\n" for n in range(4)))
    done = predict_parts(
        folder / "model.safetensors", tmp_path / "list.csv", tmp_path / "out", engine="ray", part=2, workers=1
    )
    assert (done.recordings, done.windows, done.now) == (4, 6, 4)
    for name in contents(local):
        if name.endswith(".parquet"):
            ours, theirs = (parquet.read_table(out / name).to_pylist() for out in (tmp_path / "out", local))
            assert [row["file"] for row in ours] == [row["file"] for row in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert one == pytest.approx(other, abs=2e-6)
    assert len(urls) == 4


def test_one_line_for_what_cannot_be(folder, local, tmp_path, capsys):
    model, media = folder / "model.safetensors", folder / "media"

    def fails(*arguments) -> str:
        with pytest.raises(SystemExit) as end:
            main(["predict", str(model), *map(str, arguments)])
        assert end.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert "--format parquet needs --out, a folder or a URL" in fails(media, "--format", "parquet")
    assert "--engine ray: writes Parquet files" in fails(media, "--engine", "ray", "--format", "csv")
    assert "--out s3://x/y: only --format parquet writes to a URL" in fails(media, "--out", "s3://x/y")
    assert "0.mp4: is listed 2 times" in fails(media, media / "0.mp4", "--format", "parquet", "--out", tmp_path / "o")
    assert "holds predictions with another hop" in fails(media, "--format", "parquet", "--out", local, "--hop", "0.5")
    (tmp_path / "list.csv").write_text("file\nabsent.mp4\n")
    assert "list.csv: line 2: " in fails(tmp_path / "list.csv")
    assert "no media file is listed there" in fails(f"file://{tmp_path}/none")
    full = "/dev/full/out"
    assert "cannot be made" in fails(media, "--format", "parquet", "--out", full)


def test_a_model_that_wants_a_gpu_the_cluster_lacks(cluster, folder, tmp_path):
    with pytest.raises(AvscError, match="device cuda: no machine of the Ray cluster has a GPU"):
        predict_parts(folder / "model.safetensors", folder / "media", tmp_path, engine="ray", device="cuda", workers=1)
