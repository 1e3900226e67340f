"""avsc recipes, and what `avsc train TARGET` and the other verbs on stages make of a target."""

import sys
from pathlib import Path

import pytest

from avsc_e2e.cli import main, targets
from avsc_e2e.cli.targets import DataTarget, StageTarget, recipe_files, stages_of, target_of
from avsc_e2e.errors import AvscError

OWN = '''"""My own recipe."""
from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import own
from avsc_e2e.training.recipe import Recipe

sound = Recipe("own/sound", model=replace(own.tiny(), video=""), epochs=3)
rate = 3
if __name__ == "__main__":
    run(sound=sound, longer=replace(sound, epochs=7), rate=rate)
'''


@pytest.fixture
def avsc(capsys):
    """Runs `avsc`; gives the exit status, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, words)))
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder, with a recipe file and a folder of the name of a recipe."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "own_videos" / "dog").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a recipe file's folder joins it
    return tmp_path


def test_list_of_recipes(avsc):
    status, out, _ = avsc("recipes", "own_*")
    assert status == 0
    title, *stages = out.splitlines()
    assert title.startswith("own_videos: Videos of your own in class folders")
    assert [line.split()[0] for line in stages] == [
        f"own_videos/{name}" for name in stages_of(recipe_files()["own_videos"])
    ]
    (hybrid,) = (line for line in stages if line.split()[0] == "own_videos/hybrid")
    assert hybrid.endswith(
        "audio_resnet10 + tf_efficientnet_lite0, at most 10 epochs, after own_videos/audio, own_videos/video"
    )


def test_what_a_target_names(folder):
    assert target_of("own_videos/video") == StageTarget(recipe_files()["own_videos"], "video")
    assert target_of("own.py:longer") == StageTarget(Path("own.py"), "longer")
    # A folder of a recipe's name is data; so is anything that exists and is no stage.
    assert target_of("own_videos") == DataTarget("own_videos")
    assert target_of("own_videos/dog") == DataTarget("own_videos/dog")
    assert target_of(str(folder)) == DataTarget(str(folder))
    assert target_of("s3://bucket/store") == DataTarget("s3://bucket/store")


def test_stages_are_what_the_file_hands_to_run(folder):
    assert StageTarget(Path("own.py"), "sound").load().epochs == 3
    assert StageTarget(Path("own.py"), "longer").load().epochs == 7


def test_show_of_a_recipe_file(folder, avsc):
    status, out, _ = avsc("show", "own.py:longer", "--batch-size", 9)
    assert status == 0
    assert "epochs = 7\n" in out
    assert "batch_size = 9\n" in out


def test_recipe_file_without_run(folder):
    """Every Recipe at its top level is a stage."""
    Path("bare.py").write_text(OWN.split("if __name__")[0])
    assert StageTarget(Path("bare.py"), "sound").load().name == "own/sound"
    with pytest.raises(AvscError, match=r"bare.py: unknown stage 'soudn': did you mean sound\?"):
        StageTarget(Path("bare.py"), "soudn").load()
    with pytest.raises(AvscError, match="stage rate is of type int, not a Recipe"):
        StageTarget(Path("bare.py"), "rate").load()


BROKEN = {
    "comma.py": "x = (1,\ny = 2\n",
    "name.py": "x = 1\ny = undefined_name\n",
    "value.py": OWN.replace("epochs=3", "epochs=-3"),
    "null.py": "x = '\0'\n",
}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("train", "train: name a stage first, such as zhang_ioa/hybrid, or your data"),
        ("train --epochs 3", "train: name a stage first"),
        ("train zhang_ioa", "zhang_ioa: name a stage of this recipe: zhang_ioa/places, zhang_ioa/audio, "),
        ("evaluate zhang_ioa/hybird", "unknown stage 'hybird': did you mean hybrid?"),
        ("train openl3_baseline/lat", "unknown stage 'lat': did you mean late?"),
        ("train zhang_ioa/late", "unknown stage 'late': known are places, audio"),
        ("train zhang_iao/hybrid", "no recipe and no file or folder of that name; did you mean zhang_ioa/hybrid?"),
        ("train videos_of_mine", "no recipe and no file or folder of that name; `avsc recipes` lists the recipes"),
        ("train own.py", "own.py: name a stage of this recipe: own.py:sound, own.py:longer, own.py:rate"),
        ("train own.py:soudn", "own.py:soudn: unknown stage 'soudn': did you mean sound?"),
        ("train own.py:rate", "own.py: stage rate is of type int, not a Recipe"),
        ("show absent.py:sound", "absent.py: no such file"),
        ("train comma.py:x", "comma.py, line 1: not Python: '(' was never closed"),
        ("train name.py:x", "name.py, line 2: NameError: name 'undefined_name' is not defined"),
        ("train value.py:sound", "value.py: --epochs -3: at least one is needed"),
        ("train null.py:x", "null.py: not Python: source code string cannot contain null bytes"),
        ("evaluate own_videos", "own_videos is data, not a recipe"),
        ("recipes xyz", "no recipe matches 'xyz'"),
        ("recipes --pattren x", "pattren"),
    ],
)
def test_mistakes_are_one_line(folder, avsc, command, reason):
    for name, text in BROKEN.items():
        Path(name).write_text(text)
    status, out, err = avsc(*command.split())
    assert status == 2
    assert reason in err
    assert not out
    assert len(err.splitlines()) == 1


def test_mistyped_stages_are_answered_without_running_a_file(monkeypatch, avsc):
    monkeypatch.setattr(targets, "load_file", None)
    assert avsc("train", "zhang_ioa/hybird")[0] == 2
