"""The pages of the site: their Python is run, the messages that they explain exist, it builds without a warning."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import avsc_e2e
from avsc_e2e.learner import run as learner
from avsc_e2e.learner.embeddings import members_at_hand

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with VIDEOS and recordings of the names in the pages, and what else these take for given."""
    folder = tmp_path_factory.mktemp("pages")
    paths, labels, groups = [], [], []
    for label, pitch in (("concert", 2000), ("street", 300)):
        (folder / "VIDEOS" / label).mkdir(parents=True)
        for source in range(6):
            noise = np.random.default_rng((pitch, source)).normal(0, 0.05, 12000)
            path = folder / "VIDEOS" / label / f"{label} {source}.wav"
            soundfile.write(path, np.sin(2 * np.pi * pitch * np.arange(12000) / 8000) / 5 + noise, 8000)
            paths.append(path)
            labels.append(label)
            groups.append(f"place {source}")
    for name in ("holiday.mp4", "HOLIDAY.mp4"):  # content tells that it is audio alone
        (folder / name).write_bytes(paths[0].read_bytes())
    return folder, {"paths": paths, "labels": labels, "groups": groups}


@pytest.fixture
def in_place(place, monkeypatch):
    members = [member for member in members_at_hand() if member.name == "log-mel"]
    monkeypatch.setattr(learner, "members_at_hand", lambda: members)
    monkeypatch.chdir(place[0])
    if not Path("runs/mine").exists():
        avsc_e2e.fit("VIDEOS", minutes=1, out="runs/mine")


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("page", ["tutorial.md", "own_videos.md", "hub.md", "look_and_explain.md"])
def test_code_that_uses_a_run(place, page):
    names: dict = dict(place[1])
    for code in blocks(page):
        exec(code, names)
    if page == "tutorial.md":
        assert names["found"].segments[0].scene == "concert"
    if page == "hub.md":
        assert "Trained on my holiday videos (CC BY 4.0)" in Path("FOLDER/README.md").read_text()


@pytest.mark.usefixtures("in_place")
def test_code_with_scikit_learn(place):
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    names: dict = dict(place[1])
    names["frame"] = pandas.DataFrame({"file": names["paths"], "label": names["labels"], "group": names["groups"]})
    sounds = [{"path": str(path), "bytes": None} for path in names["paths"]]
    table = datasets.Dataset.from_dict({"sound": sounds, "label": names["labels"]})
    names["dataset"] = table.cast_column("sound", datasets.Audio())
    for code in blocks("scikit_learn.md"):
        exec(code, names)
    assert names["classifier"].classes_.tolist() == ["concert", "street"]
    assert names["scores"].tolist() == [1.0, 1.0, 1.0]
    assert names["clip"].audio.shape == (8, 1, 16000)


@pytest.mark.usefixtures("in_place")
def test_code_of_the_first_pages(place):
    """Of README what needs no hub, and of the first steps all."""
    for name in ("learner", "own_videos/hybrid"):
        Path("runs", name).parent.mkdir(exist_ok=True)
        Path("runs", name).symlink_to(Path("runs/mine").resolve())
    Path("FOLDER").mkdir(exist_ok=True)
    Path("FOLDER/street.wav").write_bytes(place[1]["paths"][-1].read_bytes())
    draw = np.random.default_rng(0)
    frames, samples = draw.integers(0, 256, (50, 48, 64, 3), dtype=np.uint8), draw.normal(0, 0.1, (1, 96_000))
    names: dict = {"avsc_e2e": avsc_e2e, "frames": frames, "samples": samples.astype(np.float32)}
    names["source"] = [(names["samples"][:, 24_000 * part :][:, :24_000], frames[part], part / 2) for part in range(4)]
    for code in (blocks("../README.md")[1], *blocks("first_steps.md")):
        exec(code, names)
    assert names["model"].architecture.classes == ("concert", "street")
    assert names["found"].segments[0].end == 2.0
    assert [window.start for window in names["rest"]] == [1.0]


def test_all_other_code_is_python():
    pages = [ROOT / "README.md", ROOT / "recipes/README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [(page, code) for page in pages for code in BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert len({page for page, _ in found}) > 6
    for page, code in found:
        compile(code, str(page), "exec")


def test_troubleshooting_explains_messages_that_exist():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "avsc_e2e").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # messages go over lines
    source = re.sub(r"\{len\(corpus.classes\)\}", "1", source)
    messages = re.findall(r"^### (.+)$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(messages) > 15
    assert [message for message in messages if message not in source] == []


def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("the packages of the extra docs are not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", ROOT / "mkdocs.yml", "-d", tmp_path / "site"],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "site/reference/commands/index.html").read_text(encoding="utf-8")
    assert "avsc data prepare" in commands
    assert "SceneClassifier" in (tmp_path / "site/reference/python/index.html").read_text(encoding="utf-8")
