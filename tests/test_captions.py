"""Segments in the formats of other programs."""

import pytest

from avsc_e2e.captions import audacity, captions, segments_csv, webvtt
from avsc_e2e.cli import main
from avsc_e2e.segments import SceneSegment

SEGMENTS = [SceneSegment(0.0, 2.0, "a <b> & c", 0.876), SceneSegment(2.0, 3725.5, "tram", 0.5)]


def test_subtitles():
    assert webvtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\na &lt;b&gt; &amp; c 88 %\n\n"
        "00:00:02.000 --> 01:02:05.500\ntram 50 %\n"
    )


def test_labels():
    assert audacity(SEGMENTS) == "0.000000\t2.000000\ta <b> & c\n2.000000\t3725.500000\ttram\n"
    assert captions("audacity", SEGMENTS) == audacity(SEGMENTS)
    assert captions("webvtt", SEGMENTS) == webvtt(SEGMENTS)


def test_rows():
    assert segments_csv([SceneSegment(0.5, 2.0, 'x, "y"', 0.25)]) == (
        'start,end,scene,confidence\n0.500,2.000,"x, ""y""",0.250000\n'
    )


def test_predict_writes_them_for_one_recording(tmp_path, capsys):
    from support import flat, write_video

    from avsc_e2e.models.weights.checkpoint import save_model
    from avsc_e2e.models.zoo.catalogue import create_model

    model = create_model("tiny", audio="", fusion="").eval()
    save_model(model, tmp_path / "model.safetensors", {"recipe": "{}"})
    videos = [write_video(tmp_path / f"{name}.mp4", [flat(90)] * 15, rate=10) for name in "ab"]
    out = tmp_path / "a.vtt"
    with pytest.raises(SystemExit) as end:
        main(["predict", str(tmp_path), str(videos[0]), "--format", "webvtt", "--out", str(out)])
    assert end.value.code == 0
    text = out.read_text()
    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n")
    assert text.endswith(" %\n")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(tmp_path), *map(str, videos), "--format", "audacity"])
    assert end.value.code == 2
    assert "--format audacity: contains one recording" in capsys.readouterr().err
