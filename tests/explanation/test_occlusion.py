"""Explanations: what is hidden, and that the effect is found where a decision is known to rest."""

import re

import numpy as np
import pytest
import torch
from support import click, flat, write_video
from torch import nn

import avsc_e2e
from avsc_e2e.cli import main
from avsc_e2e.errors import AvscError
from avsc_e2e.explanation.occlusion import (
    band_edges,
    explain,
    log_odds,
    silenced,
    without_band,
    without_frame,
    without_region,
)
from avsc_e2e.explanation.page import page, sentences
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.ensemble import Ensemble, Member
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.catalogue import create_model

SOUND = Architecture(
    audio="audio_test", video="", fusion="", channels="mono", sample_rate=8000, fft=256, hop=80, bands=32
)
FRAMES = Architecture(
    audio="", video="test_efficientnet", fusion="", size=32, frames=2, mean=(0.5,) * 3, std=(0.5,) * 3
)


class Known(Ensemble):
    """Its audio head gives class b log-odds by the level of 1500 Hz, its video head by the light of the upper left
    quarter; the decision adds them."""

    def __init__(self):
        nn.Module.__init__(self)
        self.architecture = Architecture(
            audio="audio_test", video="test_efficientnet", channels="mono", sample_rate=8000, size=32, frames=2,
            classes=("a", "b"),
        )  # fmt: skip
        self.weight = nn.Parameter(torch.zeros(1))

    def preprocess(self, clip):
        return clip

    def forward(self, clip):
        tone = torch.fft.rfft(clip.audio[:, 0]).abs()[:, 1500] / 4000
        light = clip.video[..., :16, :16].float().mean(dim=(1, 2, 3, 4)) / 255
        return {name: torch.stack([0 * x, x], 1) for name, x in (("audio", 2 * tone), ("video", 3 * light))}

    def decide(self, logits, present):
        return sum(logits[name] * present[:, [i]] for i, name in enumerate(("audio", "video"))).softmax(dim=1)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Three seconds: a tone of 1500 Hz, and frames whose upper left quarter is white."""
    frame = flat(0, 64, 64)
    frame[:32, :32] = 255
    tone = 0.8 * np.sin(2 * np.pi * 1500 * np.arange(3 * 48_000) / 48_000)
    path = tmp_path_factory.mktemp("explained") / "v.mp4"
    return write_video(path, [frame] * 30, rate=10, sound=tone[None].astype(np.float32))


def test_the_effect_is_where_the_decision_rests(video):
    found = explain(Known(), video, grid=4, parts=5)
    assert (found.scene, found.modalities, len(found.windows)) == ("b", ("audio", "video"), 3)
    window = found.windows[1]
    tone, light = 2 * 0.8, 3.0
    together = tone + light
    assert log_odds(window.probabilities["decision"])[1] == pytest.approx(together, abs=0.25)
    assert log_odds(window.probabilities["audio alone"])[1] == pytest.approx(tone, abs=0.1)
    assert log_odds(window.probabilities["video alone"])[1] == pytest.approx(light, abs=0.2)
    assert found.edges == (0, 125, 250, 500, 1000, 2000, 4000)
    np.testing.assert_allclose(window.effects["bands"], [0, 0, 0, 0, tone, 0], atol=0.1)
    np.testing.assert_allclose(window.effects["time"], [tone / 5] * 5, atol=0.06)
    # The mean colour of a frame is a quarter of white: hiding a quarter of the light costs three quarters of it.
    regions = np.zeros((4, 4))
    regions[:2, :2] = light / 4 * 3 / 4
    np.testing.assert_allclose(window.effects["regions"], regions, atol=0.1)
    np.testing.assert_allclose(window.effects["frames"], [light / 2 * 3 / 4] * 2, atol=0.1)
    said = " ".join(sentences(found))
    assert "frequency band that matters most is 1k to 2k Hz" in said
    assert re.search(r"audio alone gives b with 8\d", said.lower())


def test_fewer_windows_are_spread_over_the_recording(video):
    assert [w.start for w in explain(Known(), video, windows=2, grid=1).windows] == [0.0, 1.5]


def test_what_is_hidden():
    audio = torch.sin(2 * torch.pi * 100 * torch.arange(8000) / 8000)[None]
    audio = audio + torch.sin(2 * torch.pi * 3000 * torch.arange(8000) / 8000)
    left = torch.fft.rfft(without_band(audio, 0, 125, 8000)).abs()[0] / 4000
    assert left[100] == pytest.approx(0, abs=1e-3)
    assert left[3000] == pytest.approx(1, abs=1e-3)
    parts = silenced(torch.ones(2, 8000), 4, 8000)
    assert [part[:, 2100:3900].sum().item() for part in parts] == [3600, 0, 3600, 3600]
    assert parts[1][0, 0] == parts[1][0, 1900] == 1
    frames = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    frames[:, :, 0, 0] = 128
    hidden = without_region(frames, 0, 0, 4)
    assert hidden[0, 0, :2, :2].tolist() == [[2, 2], [2, 2]]
    assert hidden[0, 0, 2:].sum() == 0
    assert without_frame(frames, 1)[:, 0, 0, 0].tolist() == [128, 2]
    assert band_edges(48_000) == (0, 125, 250, 500, 1000, 2000, 4000, 8000, 16000, 24000)


def test_ensembles_and_files_of_one_modality(video, tmp_path):
    torch.manual_seed(0)
    members = [Member("a", SOUND), Member("v", FRAMES)]
    model = Ensemble(("x", "y"), members, {"sound": ["a"], "frames": ["v"], "both": ["a", "v"]}).eval()
    for head in model.heads.values():
        for weights in head.maps.values():
            nn.init.normal_(weights)
    both = explain(model, video, windows=1, grid=2)
    assert set(both.windows[0].probabilities) == {
        "sound", "frames", "both", "decision", "audio alone", "video alone",
    }  # fmt: skip
    assert set(both.windows[0].effects) == {"time", "bands", "frames", "regions"}
    assert np.abs(both.windows[0].effects["regions"]).max() > 0
    heard = write_video(tmp_path / "a.mka", sound=click(0.5, 1.0))
    alone = explain(model, heard, windows=1)
    assert alone.modalities == ("audio",)
    assert set(alone.windows[0].effects) == {"time", "bands"}
    assert "<h3>Video" not in page(alone)
    assert "audio alone" not in alone.windows[0].probabilities


def test_the_command_writes_a_page_that_needs_no_other_file(video, tmp_path, capsys):
    save_model(create_model("tiny").eval(), tmp_path / "model.safetensors", {"recipe": "{}"})
    out = tmp_path / "pages" / "why.html"
    with pytest.raises(SystemExit) as end:
        main(["explain", str(tmp_path), str(video), "--out", str(out), "--windows", "2", "--grid", "2"])
    assert end.value.code == 0
    text, printed = out.read_text(encoding="utf-8"), capsys.readouterr().out
    assert printed.splitlines()[-1] == f"page: {out}"
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*', text)
    assert text.count('<li class="error">') == 2
    assert f"<code>{video}</code>" in text  # a path has no terms of the glossary
    assert avsc_e2e.explain is explain


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [("absent.mp4", {}, "no such file"), ("", {"grid": 0}, "grid 0: give 1 or more")],
)
def test_mistakes_are_one_line(video, name, options, said):
    with pytest.raises(AvscError, match=said):
        explain(Known(), name or video, **options)
