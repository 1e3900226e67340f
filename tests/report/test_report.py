"""The report: its figures are the metrics', it names the classes at hand, needs nothing but itself, and is shown
by a real browser."""

import base64
import html
import io
import json
import math
import re
import shutil
import subprocess
import sys
import wave
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from avsc_e2e.clip import SCENES, Row
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.intervals import Interval
from avsc_e2e.outputs.metrics import score
from avsc_e2e.outputs.output import SystemOutput, read_output, to_clips
from avsc_e2e.outputs.reference import read_reference, targets_of
from avsc_e2e.report import charts, images, theme
from avsc_e2e.report.history import read_history
from avsc_e2e.report.page import page as html_page
from avsc_e2e.report.report import Report
from avsc_e2e.report.result import Rival
from avsc_e2e.report.template import write_page
from avsc_e2e.report.trials import Ladder, Robustness, Rung
from avsc_e2e.report.values import versions

DATA = Path(__file__).parents[3] / "shared" / "data"
ACTIONS = ("Archery", "BandMarching", "BasketballDunk", "PlayingCello", "Surfing")
LOADS = {"src", "href", "srcset", "poster", "action", "data", "xlink:href"}


@dataclass
class Page(HTMLParser):
    """What a reader sees: text, cells of tables, pictures and sounds, and everything that is loaded."""

    text: str = ""
    loads: list = field(default_factory=list)
    images: list = field(default_factory=list)
    sounds: list = field(default_factory=list)
    headings: list = field(default_factory=list)
    anchors: set = field(default_factory=set)
    tags: list = field(default_factory=list)
    unclosed: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    @classmethod
    def of(cls, text: str) -> "Page":
        page = cls()
        page.feed(text)
        page.close()
        prose = cls()  # without the links of terms, which cut sentences in pieces
        prose.feed(re.sub(r'<a class="term"[^>]*>([^<]*)</a>', r"\1", text))
        page.text = re.sub(r"\s+", " ", prose.text)
        return page

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.loads += [value for name, value in attributes.items() if name in LOADS]
        self.anchors |= {attributes["id"]} if "id" in attributes else set()
        if tag == "img":
            self.images.append(attributes)
        if tag == "audio":
            self.sounds.append(attributes)
        if tag not in ("meta", "img", "input", "br", "wbr", "link"):
            self.unclosed.append(tag)

    def handle_startendtag(self, tag, attributes):  # <rect/> and its like
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag

    def handle_data(self, data):
        if self.unclosed and self.unclosed[-1] == "style":
            return
        self.text += f" {data} "
        if self.unclosed and re.fullmatch("h[1-6]", self.unclosed[-1]):
            self.headings.append((self.unclosed[-1], data))


def segments(classes=ACTIONS, recordings=12, seconds=5, strength=2.5, seed=0) -> tuple[SystemOutput, dict[str, str]]:
    """A rendered system that is right more often than not."""
    rng = np.random.default_rng(seed)
    names = [f"{classes[i % len(classes)]}_{i:03d}" for i in range(recordings)]
    files = [name for name in names for _ in range(seconds)]
    targets = np.repeat([i % len(classes) for i in range(recordings)], seconds)
    logits = rng.normal(size=(len(files), len(classes)))
    logits[np.arange(len(files)), targets] += strength
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    output = SystemOutput(tuple(files), tuple(classes), probabilities, np.tile(np.arange(float(seconds)), recordings))
    return output, {name: classes[i % len(classes)] for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def actions() -> Report:
    audio, reference = segments(strength=1.5, seed=1)
    video, _ = segments(strength=2.5, seed=2)
    joint = audio.probabilities * video.probabilities
    fusion = replace(audio, probabilities=joint / joint.sum(1, keepdims=True))
    return Report(
        "Own <videos>",
        {"audio": audio, "video": video, "fusion": fusion},
        reference,
        note="Figures of made-up systems & nothing else.",
        configuration={
            "name": "own/hybrid",
            "optim": {"lr": 0.001, "schedule": {"kind": "cosine"}},
            "init": ("a", "b"),
        },
    )


@pytest.fixture(scope="module")
def five_systems() -> Report:
    folder = DATA / "system_outputs"
    if not folder.is_dir():
        pytest.skip("shared/data/system_outputs is absent")
    names = ("audio_only", "video_only", "early_fusion", "late_fusion", "baseline")
    outputs = {name: read_output(folder / f"{name}.csv") for name in names}
    reference = read_reference(folder / "baseline.csv")
    return Report("Five systems", outputs, reference, headline="late_fusion", rival="baseline")


@pytest.fixture(scope="module")
def with_media() -> Report:
    folder = DATA / "real_actions" / "test"
    if not folder.is_dir():
        pytest.skip("shared/data/real_actions is absent")
    rows = [
        Row(path.stem, str(path), str(path), path.parent.name, path.stem[:-4], "", 3.0)
        for path in sorted(folder.glob("*/*.mp4"))
    ]
    files = [row.file for row in rows for _ in range(3)]
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(len(ACTIONS)), len(files))
    output = SystemOutput(tuple(files), ACTIONS, probabilities, np.tile([0.0, 1.0, 2.0], len(rows)))
    return Report("Real media", {"guess": output}, {row.file: row.scene for row in rows}, rows=rows, errors=4)


def test_figures_are_the_metrics_of_both_protocols(actions):
    page = Page.of(html_page(actions))
    assert "1 s segments" in page.text
    assert "5 s clips" in page.text
    for name, output in actions.outputs.items():
        for protocol, part in (("1 s segments", output), ("5 s clips", to_clips(output))):
            expected = score(part.probabilities, targets_of(part, actions.reference), ACTIONS, protocol)
            result = actions.results[protocol][name]
            assert result.scores.log_loss == expected.log_loss
            assert result.intervals.log_loss.low <= expected.log_loss <= result.intervals.log_loss.high
            for figure in (f"{expected.log_loss:.3f}", f"{100 * expected.accuracy:.1f} %"):
                assert figure in page.text, (name, protocol, figure)
            for loss, accuracy in zip(expected.class_log_loss, expected.class_accuracy, strict=True):
                assert f"{loss:.3f}" in page.text
                assert f"{100 * accuracy:.1f} %" in page.text
    for i, row in enumerate(actions.results["1 s segments"]["fusion"].scores.confusion):
        for j, count in enumerate(row):
            if count:
                assert f"{ACTIONS[i]} as {ACTIONS[j]}: {count}" in [a.get("title") for _, a in page.tags]


def test_five_real_systems(five_systems):
    page = Page.of(html_page(five_systems))
    for figure in ("0.803", "70.9 %", "0.956", "64.1 %", "0.581", "78.7 %", "0.554", "81.7 %", "0.539", "80.7 %"):
        assert figure in page.text
    assert ("h1", "Five systems: 81.7\u00a0% accuracy, but baseline alone has the lower log loss") in page.headings
    assert re.search(r"late_fusion reaches a macro accuracy of 81.7 % \(95 % interval \d+.\d to 8", page.text)
    assert re.search(
        r"Against baseline: log loss \+0\.014 \(95 %: .0\.\d+ to \+0\.\d+\), accuracy \+1\.0 points", page.text
    )
    assert "126 locations" in page.text
    assert "barcelona" in page.text
    places = five_systems.json()["locations"]
    assert len(places) == 126
    assert sum(place["count"] for place in places.values()) == 3645
    assert len(five_systems.json()["cities"]["late_fusion"]) == 10
    assert five_systems.json()["protocols"]["whole clips"]["baseline"]["log_loss"] == pytest.approx(0.5394, abs=5e-5)


def test_names_the_classes_at_hand_and_no_others(actions):
    text = Page.of(html_page(actions)).text
    assert all(name in text for name in ACTIONS)
    assert not [name for name in SCENES if name in text]


def test_needs_nothing_but_itself(actions, with_media):
    for report in (actions, with_media):
        text = html_page(report)
        page = Page.of(text)
        assert not page.unclosed
        assert all(load.startswith(("data:", "#")) for load in page.loads)
        assert not re.search(r"(https?:)?//[a-z]|@import|url\(", re.sub(r"data:[a-z/]+;base64,[\w+/=]+", "", text))
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
        assert {load[1:] for load in page.loads if load.startswith("#")} <= page.anchors
        assert len(text) < 2_000_000


def test_texts_of_others_are_escaped(actions):
    text = html_page(actions)
    assert "Own &lt;videos&gt;" in text
    assert "made-up systems &amp; nothing else" in text
    assert "<videos>" not in text


def test_pictures_and_sounds_of_the_surest_errors(with_media):
    page = Page.of(html_page(with_media))
    shown = [error for group in with_media.error_groups.values() for error in group]
    assert len(shown) > 4
    assert {(e.file, e.start) for e in with_media.surest_errors} <= {(e.file, e.start) for e in shown}
    silent = page.text.count("No audio: ")  # one of the real files ends before the third second
    assert silent <= 1
    assert len(page.sounds) == len(shown) - silent
    assert len(page.images) == 2 * (len(shown) - silent)  # a frame and a spectrogram each
    for target, decided in with_media.error_groups:
        assert f"errors-{target}-{decided}" in page.anchors
        assert f"#errors-{target}-{decided}" in page.loads  # from the confusions
    for image in page.images:
        assert image["alt"]
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", image["src"]).groups()
        picture = imread(io.BytesIO(base64.b64decode(data)), format=kind)
        assert picture.shape[2] == 3
        assert picture.std() > 1  # shows something
    assert {
        imread(io.BytesIO(base64.b64decode(i["src"].split(",")[1])), format="jpeg").shape[0] for i in page.images
    } == {
        80,
        240,
    }
    for sound in page.sounds:
        with wave.open(io.BytesIO(base64.b64decode(sound["src"].split(",")[1]))) as file:
            assert file.getnframes() == file.getframerate()
    result = with_media.results["1 s segments"]["guess"]
    sure = result.output.probabilities.max(1)
    errors = with_media.surest_errors
    assert errors[0].probabilities.max() == sure[~result.hits].max()
    assert len({error.file for error in errors}) == 4
    for error in errors:
        assert f"{ACTIONS[error.target]}, taken for {ACTIONS[error.decided]}" in page.text
        assert error.file in page.text


def test_media_that_cannot_be_read_says_why(actions, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    rows = [Row(file, str(broken), str(tmp_path / "absent.mp4"), duration=5.0) for file in actions.reference]
    page = Page.of(html_page(replace(actions, rows=rows, errors=1)))
    assert "No image: no such file" in page.text
    assert "No audio: is not a media file" in page.text


def test_seen_and_unseen(actions):
    files = list(actions.reference)
    rows = [Row(file, location=f"place {i % 4}", city=f"city {i % 2}", duration=10.0) for i, file in enumerate(files)]
    report = replace(actions, rows=rows, train_rows=[Row("x", location="place 1", city="city 1")])
    seen = report.json()["seen"]["fusion"]
    assert {name: group["count"] for name, group in seen.items()} == {
        "locations seen in training": 3,
        "locations not seen": 9,
        "cities seen in training": 6,
        "cities not seen": 6,
    }
    result = report.results["10 s clips"]["fusion"]
    members = [i for i, file in enumerate(result.output.files) if files.index(file) % 4 == 1]
    assert seen["locations seen in training"]["log_loss"] == pytest.approx(result.losses[members].mean())
    text = Page.of(html_page(report)).text
    assert "Seen and unseen in training" in text
    assert "city 0" in text
    assert "12 recordings, 4 locations" in text
    apart = Page.of(html_page(replace(report, train_rows=[Row("y", location="elsewhere", city="city 9")]))).text
    assert "All 12 recordings are from locations not seen, in cities not seen." in apart


def test_clips_of_several_lengths_are_whole_clips(actions):
    rows = [Row(file, duration=3.0 + i) for i, file in enumerate(actions.reference)]
    assert list(replace(actions, rows=rows).results) == ["1 s segments", "whole clips"]


def test_published_rival(actions):
    rival = Rival("Wang 2021", "1 s segments", 0.658, 0.77, {"Archery": 0.4321}, {"Archery": 0.871})
    text = Page.of(html_page(replace(actions, rival=rival))).text
    own = actions.results["1 s segments"]["fusion"].scores
    assert "Wang 2021 published 0.658 77.0 %" in text
    assert "0.432" in text
    assert "87.1 %" in text
    gap = f"{own.log_loss - 0.658:+.3f}".replace("-", "−")
    assert f"Against Wang 2021: log loss {gap}" in text
    with pytest.raises(AvscError, match=r"'10 s clips'.*same protocol"):
        _ = replace(actions, rival=replace(rival, protocol="10 s clips")).results


def test_training_curves(actions, tmp_path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text(
        "epoch,step,train_loss,validation_log_loss\n0,9,1.5,\n0,9,,1.25\n1,19,1.1,0.875\n2,29,0.9,0.9375\n"
    )
    second.write_text(
        "epoch,train_loss,train_loss_audio,validation_log_loss,validation_accuracy,lr_heads\n0,1,2,.5,.6,1e-3\n"
    )
    history = read_history(first)
    assert history.epochs == [0, 1, 2]
    assert history.columns == {"train_loss": [1.5, 1.1, 0.9], "validation_log_loss": [1.25, 0.875, 0.9375]}
    assert history.best == 1
    page = Page.of(html_page(replace(actions, history={"video": first, "hybrid": second})))
    assert ("h3", "video") in page.headings
    assert ("h3", "hybrid") in page.headings
    assert "epoch 1 has the lowest validation log loss, 0.8750" in page.text
    assert "Training loss" in page.text
    assert "Learning rate" in page.text
    empty = tmp_path / "empty.csv"
    empty.write_text("epoch,train_loss\n")
    for path in (empty, tmp_path / "absent.csv"):
        with pytest.raises(AvscError, match=path.name):
            read_history(path)


def test_configuration_and_versions(actions):
    text = Page.of(html_page(actions)).text
    for words in ("name own/hybrid", "init a, b", "optim.lr 0.001", "optim.schedule.kind cosine", "python 3."):
        assert words in text
    assert f"numpy {np.__version__}" in text
    assert versions()["matplotlib"]


def test_json_is_plain(actions):
    figures = json.loads(json.dumps(actions.json(), allow_nan=False))
    assert figures["system"] == "fusion"
    assert figures["classes"] == list(ACTIONS)
    assert set(figures["protocols"]) == {"1 s segments", "5 s clips"}
    scores = actions.results["5 s clips"]["video"].scores
    assert figures["protocols"]["5 s clips"]["video"]["class_accuracy"] == scores.class_accuracy.tolist()
    assert len(figures["errors"]) == len(actions.surest_errors)


def test_wrong_requests(actions):
    with pytest.raises(AvscError, match="headline 'sum' is not among the outputs: audio, video, fusion"):
        html_page(replace(actions, headline="sum"))
    with pytest.raises(AvscError, match="rival 'best'"):
        html_page(replace(actions, rival="best"))
    with pytest.raises(AvscError, match="no system output"):
        html_page(replace(actions, outputs={}))
    other, _ = segments(classes=("a", "b"))
    with pytest.raises(AvscError, match="other has the classes a, b"):
        html_page(replace(actions, outputs={"other": other, **actions.outputs}))


@pytest.mark.parametrize("count", [2, 40, 365])
def test_any_number_of_classes(count):
    classes = tuple(f"class {i}" for i in range(count))
    output, reference = segments(classes, recordings=count, seconds=1, strength=8)
    output = replace(output, start=None)
    text = html_page(Report("Classes", {"system": output}, reference))
    page = Page.of(text)
    assert f"{count} classes" in page.text
    assert all(re.search(rf"\b{name}\b", page.text) for name in classes)
    assert f"{math.log(count):.3f}" in page.text
    assert ("The 20 hardest" in page.text) == (count > 24)
    assert len(text) < 400_000


def test_system_without_errors_and_class_without_rows():
    output, reference = segments(recordings=3, strength=40)
    page = Page.of(html_page(Report("Perfect", {"system": output}, reference)))
    assert "None of 15 rows is decided wrongly." in page.text
    assert "nan" not in page.text.lower()


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_contrast(colours):
    for name in ("page", "card", "note"):
        assert theme.contrast(colours["ink"], colours[name]) >= 7
    for name in ("page", "card"):
        assert theme.contrast(colours["muted"], colours[name]) >= 4.5
        assert all(theme.contrast(colours[f"c{i}"], colours[name]) >= 3 for i in range(theme.SERIES))
    for colour in ("c0", "bad"):
        for back, text in theme.shades(colours, colour):
            assert theme.contrast(back, text) >= 4.5


def test_spectrogram_shows_a_tone_at_its_height():
    rate = 16000
    time = np.arange(rate) / rate
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    for hertz in (440, 3000):
        picture = images.spectrogram(np.sin(2 * np.pi * hertz * time), rate)
        assert picture.shape[::2] == (80, 3)
        band = 79 - picture.astype(int).sum(axis=(1, 2)).argmax()
        expected = 81 * (mel(hertz) - mel(40)) / (mel(rate / 2) - mel(40)) - 1
        assert abs(band - expected) <= 1


def test_does_not_import_torch():
    code = "import sys, avsc_e2e.report.page; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize("which", ["actions", "five_systems", "with_media"])
def test_in_a_browser(which, request, tmp_path):
    """On a phone nothing sticks out sideways, every picture and switch works, and the browser has no complaint."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine to show the page in")
    report = request.getfixturevalue(which)
    text = html_page(report)
    # The page itself has no script; a frame of a phone's width holds it, and the probe around the frame measures.
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<!DOCTYPE html><body><iframe id="phone" width="390" height="800" srcdoc="{html.escape(text)}"></iframe>'
        """<pre id="found"></pre><script>
        onload = () => {
          const page = document.getElementById("phone").contentDocument;
          const images = [...page.images];
          const root = page.documentElement;
          const shown = selector => [...page.querySelectorAll(selector)].filter(e => e.offsetParent !== null).length;
          const before = shown(".switch > div");
          page.querySelectorAll(".switch > label:last-of-type").forEach(label => label.click());
          document.getElementById("found").textContent = JSON.stringify({
            width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight,
            images: images.filter(image => image.naturalWidth > 0).length,
            switches: page.querySelectorAll(".switch").length, before, after: shown(".switch > div"),
            second: [...page.querySelectorAll(".switch > div:last-of-type")].every(e => e.offsetParent !== null),
            font: parseFloat(getComputedStyle(page.querySelector("td")).fontSize),
          });
        };
        </script>""",
        encoding="utf-8",
    )
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    found = json.loads(html.unescape(found[1]))
    assert found["scroll"] <= found["width"] <= 390
    assert found["height"] > 2000
    assert found["images"] == len(Page.of(text).images)
    assert found["switches"] == (3 + (len(report.outputs) > 1) if len(report.results) > 1 else 0)
    assert found["before"] == found["after"] == found["switches"]
    assert found["second"]
    assert found["font"] >= 11
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints


def test_navigation_equals_headings(actions):
    text = html_page(actions)
    links = re.findall(r'<a href="#([a-z]+)">([^<]+)</a>', text[text.index("<nav") : text.index("</nav>")])
    assert [("h2", name) for _, name in links] == [h for h in Page.of(text).headings if h[0] == "h2"]
    assert [anchor for anchor, _ in links] == re.findall(r'<section id="([a-z]+)"', text)


def test_verdict_in_words(actions):
    better = replace(
        actions, headline="audio", data="own videos", command="avsc train <x>", mend="avsc fuse a.csv b.csv"
    )
    page = Page.of(html_page(better))
    h1 = next(text for level, text in page.headings if level == "h1")
    assert h1.startswith("Own <videos> on own videos: ")
    assert h1.endswith("accuracy, but the fusion head alone has the lower log loss")
    assert "The fusion head has a lower log loss than the decision." in page.text
    assert "avsc fuse a.csv b.csv" in page.text
    assert "avsc train <x>" in page.text
    assert "Chance, with 5 classes, is 20.0 % and 1.609" in page.text
    probe = Rival("the frozen probe", "1 s segments", 0.5, 0.75)
    own = actions.results["1 s segments"]["fusion"].scores
    text = Page.of(html_page(replace(actions, probe=probe))).text
    assert f"Against the frozen probe: log loss {own.log_loss - 0.5:+.3f}".replace("-", "−") in text


def test_few_recordings_give_a_warning_and_no_interval_of_zero_width():
    output, reference = segments(recordings=5, strength=40)
    text = Page.of(html_page(Report("Few", {"system": output}, reference))).text
    assert "Warning: few test data: 5 recordings in all, 1 recording of class Archery" in text
    assert "100.0 to 100.0" not in text
    assert "95 %: 56.6 to 100.0" in text  # Wilson: 5 / (5 + 1.96 ** 2)


def test_terms_are_explained_where_they_are_used(actions):
    page = Page.of(html_page(actions))
    for term in ("macro", "nats", "fusion"):
        assert page.loads.count(f"#term-{term}") == 1
        assert f"term-{term}" in page.anchors
    assert "epoch" not in [a.removeprefix("term-") for a in page.anchors]  # no curves, so no such term


def test_changed_settings_are_told_from_defaults(actions):
    report = replace(
        actions,
        configuration={"epochs": 3, "optim": {"lr": 0.01, "clip": 5.0}},
        defaults={"epochs": 20, "optim": {"lr": 0.01, "clip": 5.0}},
    )
    text = Page.of(html_page(report)).text
    assert "1 setting differs from the default" in text
    assert re.search(r"setting value default epochs 3 20 Settings at their default \(2\)", text)


def test_curves_once_under_plain_names(actions, tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text(
        "epoch,train_loss,train_loss_video,validation_log_loss,validation_log_loss_video,lr,seconds\n"
        "1,2,2,1,1,.1,9\n2,1,1,0.5,0.5,.1,9\n"
    )
    text = Page.of(html_page(replace(actions, history={"one": file, "same": file}))).text
    table = text[text.index("Every epoch as a table") :]
    assert "epoch training loss validation log loss learning rate 1 2 1 0.1 2 1 0.5 0.1" in table
    assert text.count("Every epoch as a table") == 1
    assert "validation_log_loss" not in text


def test_ladder_and_robustness(actions):
    rungs = (
        Rung("frozen <probe>", 0.31, 0.91, 12, Interval(0.2, 0.4), note="features"),
        Rung("fine-tuning", note="skipped: no time left"),
    )
    ladder = Ladder(rungs, "frozen <probe>", "Five folds by source.", 96, 40)
    noise = Robustness("white noise", (30.0, 0.0), {"joint": (0.2, 0.9)}, {"joint": (0.9, 0.5)}, "dB")
    missing = Robustness("missing modality", ("both", "audio only"), {"joint": (0.2, 0.7)})
    page = Page.of(html_page(replace(actions, ladder=ladder, robustness=(noise, missing))))
    assert "Five folds by source. 96 recordings from 40 sources." in page.text
    assert "frozen <probe> chosen 0.310 0.200 to 0.400 91.0 % 12 features" in page.text
    assert "fine-tuning – – – skipped: no time left" in page.text
    assert "dB joint log loss joint accuracy 30.0 0.200 90.0 % 0.0 0.900 50.0 %" in page.text
    assert "audio only 0.700" in page.text
    with pytest.raises(AvscError, match="'x' is not among the rungs"):
        Ladder(rungs, "x", "")
    with pytest.raises(AvscError, match="joint has 1 figures for 2 levels of white noise"):
        Robustness("white noise", (1.0, 2.0), {"joint": (0.1,)})


def test_marks_that_would_cover_each_other_lie_apart():
    heights = charts._apart([1.0, 1.0, 0.99, 0.3, math.nan])
    assert len(set(heights[:3])) == 3
    assert heights[3] == heights[4] == 14


def test_a_page_is_whole_or_as_it_was(tmp_path, monkeypatch):
    """A run that is killed while it writes its report leaves the one of before."""
    path = write_page("before", tmp_path / "new" / "report.html")

    def cut_off(self, text, **_):
        with open(self, "w") as file:
            file.write(text[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write_page("after", path)
    assert path.read_bytes() == b"before"
