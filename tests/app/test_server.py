"""The server of the page: what it answers, what it refuses, and that nothing of a visitor is left."""

import asyncio
import json
import time

import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer
from support import click, flat, write_video

from avsc_e2e.app import server as server_module
from avsc_e2e.app.analysis import analyse
from avsc_e2e.app.limits import Limits, Rate
from avsc_e2e.app.server import Server, is_loopback
from avsc_e2e.errors import AvscError
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.prediction.predictor import Predictor


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return Predictor(create_model("tiny").eval(), on_bad="mask")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    frames = [flat(40 + i) for i in range(25)]
    return write_video(tmp_path_factory.mktemp("app") / "v.mp4", frames, rate=10, sound=click(0.5, 2.5))


def talk(models, ask, limits=None, **options):
    """What `ask(client, server)` gives; afterwards no file is left."""

    async def run():
        server = Server(models, limits or Limits(), **options)
        async with TestClient(TestServer(server.application(), host="127.0.0.1")) as client:
            found = await ask(client, server)
            assert list(server.folder.iterdir()) == []
            assert server.held == 0
        assert not server.folder.exists()
        return found

    return asyncio.run(run())


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_recording_is_predicted_by_every_model_as_predict_does(predictor, video):
    async def ask(client, server):
        answer = await client.post("/predict?name=holiday.mp4", data=video.read_bytes())
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        return lines(await answer.text())

    found = talk({"one": predictor, "two": predictor}, ask)
    results = {line["model"]: line["result"] for line in found if "result" in line}
    assert list(results) == ["one", "two"]
    assert [line["progress"] for line in found if line.get("model") == "one" and "progress" in line][-1] == 1
    told, expected = results["two"], predictor(video)
    assert told["starts"] == [window.start for window in expected.windows]
    np.testing.assert_allclose(
        told["voices"]["decision"], [window.probabilities for window in expected.windows], atol=1e-4
    )
    assert {"audio", "video", "fusion", "decision", "audio alone", "video alone"} == set(told["voices"])
    assert [segment["scene"] for segment in told["segments"]] == [segment.scene for segment in expected.segments]
    assert told["downloads"]["webvtt"].startswith("WEBVTT")
    assert told["modalities"] == ["audio", "video"]
    assert any(sentence.startswith("Without audio it would") for sentence in told["sentences"])


def test_each_modality_alone_is_the_file_without_the_other(predictor, video, tmp_path):
    told = analyse(predictor, video, Limits())
    frames = [flat(40 + i) for i in range(25)]
    silent = analyse(predictor, write_video(tmp_path / "silent.mp4", frames, rate=10), Limits())
    np.testing.assert_allclose(told["voices"]["video alone"], silent["voices"]["decision"], atol=1e-3)
    # What no clip has has no voice: neither its head nor the decision without the other.
    assert set(silent["voices"]) == {"video", "fusion", "decision"}
    assert len(silent["sentences"]) == 1
    assert silent["modalities"] == ["video"]


@pytest.mark.parametrize(
    ("limits", "name", "size", "status", "said"),
    [
        (Limits(size=0.001), "v.mp4", None, 413, "larger than 0.001 MB"),
        (Limits(), "v.exe", None, 415, ".exe is not known as video or audio"),
        (Limits(), "", None, 415, "a file without extension"),
        (Limits(rate=0), "v.mp4", None, 429, "more than 0 recordings a minute"),
        (Limits(waiting=0), "v.mp4", None, 503, "too many recordings are waiting"),
        (Limits(length=2), "v.mp4", None, 200, "the recording lasts 2 s, and 2 s are allowed"),
        (Limits(time=0), "v.mp4", None, 200, "the prediction takes more than 0 s"),
        (Limits(), "v.mp4", 1000, 200, "the recording is not a media file that can be read"),
    ],
)
def test_limits_and_damage_are_one_line(predictor, video, limits, name, size, status, said):
    async def ask(client, server):
        answer = await client.post(f"/predict?name={name}", data=video.read_bytes()[:size])
        assert answer.status == status
        return lines(await answer.text())[-1]["error"]

    error = talk({"one": predictor}, ask, limits)
    assert said in error
    assert "avsc_app_" not in error


def test_an_upload_of_unknown_size_ends_at_the_limit(predictor, video):
    sent = []

    async def endless():
        while True:
            sent.append(1)
            yield bytes(100_000)

    async def ask(client, server):
        try:
            return (await client.post("/predict?name=v.mp4", data=endless())).status
        except ConnectionError:  # the server may close before the client has read its answer
            return 413

    assert talk({"one": predictor}, ask, Limits(size=1)) == 413
    assert len(sent) < 200


def test_only_its_own_page_is_answered(predictor):
    async def ask(client, server):
        statuses = []
        for headers in (
            {},
            {"Origin": f"http://127.0.0.1:{client.port}"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Host": "evil.example"},
        ):
            statuses.append((await client.get("/", headers=headers)).status)
        return statuses

    assert talk({"one": predictor}, ask) == [200, 200, 403, 403, 403]
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "a.b")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_pages_and_examples(predictor, video):
    async def ask(client, server):
        found = [await client.get(path) for path in ("/", "/app.js", "/app.css", "/examples/v.mp4", "/examples/x.mp4")]
        about = await (await client.get("/about")).json()
        assert all("script-src 'self'" in answer.headers["Content-Security-Policy"] for answer in found[:4])
        return [answer.status for answer in found], about, await found[3].read()

    statuses, about, body = talk({"one": predictor}, ask, examples=[video])
    assert statuses == [200, 200, 200, 200, 404]
    assert (about["models"], about["examples"], about["limits"]["length"]) == (["one"], ["v.mp4"], 600)
    assert body == video.read_bytes()


def test_a_visitor_who_leaves_stops_the_work_and_leaves_nothing(predictor, video, monkeypatch):
    seen = []

    def slow(model, path, limits, progress, stop):
        for _ in range(400):
            if stop.is_set():
                seen.append(path.exists())
                raise AvscError("left")
            time.sleep(0.01)
        seen.append("to the end")

    monkeypatch.setattr(server_module, "analyse", slow)

    async def ask(client, server):
        answer = await client.post("/predict?name=v.mp4", data=video.read_bytes())
        answer.close()
        for _ in range(300):
            if not server.held:
                return
            await asyncio.sleep(0.01)

    talk({"one": predictor}, ask)
    assert seen == [True]  # the file was there as long as it was read


def test_the_rate_forgets():
    now = [0.0]
    rate = Rate(2, clock=lambda: now[0])
    assert [rate.allows("a"), rate.allows("a"), rate.allows("a"), rate.allows("b")] == [True, True, False, True]
    now[0] = 60.0
    assert rate.allows("a")
    assert list(rate._seen) == ["a"]
