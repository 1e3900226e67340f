"""The page of a data set: its figures, its examples, and what is wrong with its files."""

import re

import numpy as np
import pytest
import soundfile
from support import click, flat, real, write_video

import avsc_e2e
from avsc_e2e.cli import main
from avsc_e2e.clip import Row
from avsc_e2e.errors import AvscError
from avsc_e2e.survey.survey import look, spread


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("look") / "set"
    for name, seconds in (("indoors", (1.0, 2.0, 4.0)), ("outdoors", (1.5, 1.5))):
        (root / name).mkdir(parents=True)
        for number, length in enumerate(seconds):
            frames = [flat(40 * (number + 1))] * round(10 * length)
            write_video(root / name / f"{name}{number}.mp4", frames, rate=10, sound=click(0.2, length))
    soundfile.write(root / "outdoors" / "quiet.wav", np.full(32_000, 0.1), 16_000)
    (root / "indoors" / "broken.mp4").write_bytes(b"no video")
    return root


def test_figures_of_the_classes(root):
    found = look(root, fast=True, examples=2)
    indoors, outdoors = found.classes
    assert (indoors.name, indoors.recordings, outdoors.recordings) == ("indoors", 4, 3)
    assert indoors.lengths == pytest.approx((1.0, 2.0, 4.0), abs=0.05)
    assert 3600 * outdoors.hours == pytest.approx(5.0, abs=0.1)
    assert indoors.sizes == {"64 x 48, 10 /s": 3}
    assert outdoors.audio == {"48000 Hz x 2": 2, "16000 Hz x 1": 1}
    assert indoors.bytes == sum(path.stat().st_size for path in (root / "indoors").glob("indoors*"))
    assert [len(one.examples) for one in found.classes] == [2, 2]
    assert any(problem.path.endswith("broken.mp4") for problem in found.check.problems)


def test_examples_are_of_different_sources():
    rows = [Row(f"{place}{i}", location=place) for place in "abcd" for i in range(3)]
    assert [row.file for row in spread(rows, 2)] == ["a0", "c0"]
    assert [row.file for row in spread(rows[:6], 4)] == ["a0", "b0", "a1", "a2"]


def test_the_command_writes_a_page_that_needs_no_other_file(root, tmp_path, capsys):
    out = tmp_path / "look.html"
    with pytest.raises(SystemExit) as end:
        main(["look", str(root), "--out", str(out), "--examples", "1", "--fast"])
    assert end.value.code == 0
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {out}"
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*', text)
    assert text.count('<li class="error">') == 2
    assert "broken.mp4</th>" in text
    assert 'id="glossary"' not in text  # no term of it is on the page
    assert avsc_e2e.look is look


def test_mistakes_are_one_line(root, tmp_path):
    with pytest.raises(AvscError, match="no such folder"):
        look(tmp_path / "absent")
    with pytest.raises(AvscError, match="examples -1"):
        look(root, examples=-1)


def test_lists_without_media_are_named_as_such():
    with pytest.raises(AvscError, match=r"fold1_train.csv: line 2: .* is absent"):
        look(real("tau_urban_audio_visual_scenes_2021"), fast=True)
