"""Wrong calls from Python, and of commands, that once ended in a traceback or were told something else."""

import errno
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import avsc_e2e
from avsc_e2e.cli import main
from avsc_e2e.cli.parsing import one_line_errors
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.export.comparison import export_checkpoint
from avsc_e2e.outputs.output import SystemOutput, align


def outputs():
    files, classes, half = ("a", "b"), ("x", "y"), np.full((2, 2), 0.5)
    return [SystemOutput(files, classes, half), SystemOutput(files, classes, half, np.zeros(2))]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model, a file of it, and a recording."""
    folder = tmp_path_factory.mktemp("given")
    model = avsc_e2e.create_model("tiny", classes=("x", "y"))
    avsc_e2e.save_model(model, folder / "run" / "model.safetensors")
    soundfile.write(folder / "a.wav", np.zeros(8000), 8000)
    soundfile.write(folder / "b.wav", np.zeros(8000), 8000)
    return SimpleNamespace(model=model, run=folder / "run", clip=folder / "a.wav", other=folder / "b.wav", to=folder)


FRAMES = np.zeros((25, 64, 64, 3), np.uint8)
CALLS = {
    "fit-data": (lambda g: avsc_e2e.fit(None), "data None: give a path"),
    "fit-list": (lambda g: avsc_e2e.fit(["a.mp4"]), r"data \['a.mp4'\]: give a path"),
    "fit-minutes": (lambda g: avsc_e2e.fit(g.to, minutes="5"), "minutes '5': give a number"),
    "fit-nan": (lambda g: avsc_e2e.fit(g.to, minutes=float("nan")), "minutes nan: give a number of minutes above 0"),
    "fit-seed": (lambda g: avsc_e2e.fit(g.to, seed=-1), "seed -1: give 0 or more"),
    "fit-decoder": (lambda g: avsc_e2e.fit(g.to, decoder="x"), "decoder 'x': give one of auto, pyav, decord"),
    "fit-resume": (lambda g: avsc_e2e.fit(g.to, out=g.to / "new", resume=True), "leave resume out to start"),
    "predict-none": (lambda g: avsc_e2e.predict(g.model, None), "recording 1, None: give a path, a URL, bytes or"),
    "predict-array": (lambda g: avsc_e2e.predict(g.model, [np.zeros((3, 4))]), r"recording 1, array\(.*: give a path"),
    "predict-swapped": (lambda g: avsc_e2e.predict(g.clip, g.run), r"a\.wav: is not a checkpoint"),
    "predict-url": (lambda g: avsc_e2e.predict("https://h/m", g.clip), "https://h/m: is a URL"),
    "predict-hop": (lambda g: avsc_e2e.predict(g.model, g.clip, hop="1"), "hop '1': give a number"),
    "predict-batch": (lambda g: avsc_e2e.predict(g.model, g.clip, batch_size=0), "^batch_size 0: give 1 or more"),
    "predict-device": (lambda g: avsc_e2e.predict(g.model, g.clip, device="gpu"), "^device gpu: there is no such"),
    "predict-precision": (lambda g: avsc_e2e.predict(g.model, g.clip, precision="fp8"), "precision 'fp8': give one of"),
    "predict-test-time": (lambda g: avsc_e2e.predict(g.model, g.clip, test_time="flip"), "'flip': give a TestTime"),
    "predict-calibration": (
        lambda g: avsc_e2e.predict(g.model, g.clip, calibration="c.json"),
        "calibration 'c.json': give a Calibration or None",
    ),
    "predict-patience": (lambda g: avsc_e2e.predict(g.model, g.clip, patience=0), "patience 0: give seconds above 0"),
    "predictor-other": (lambda g: avsc_e2e.Predictor(3), "checkpoint 3: give a path or a SceneNet or an Ensemble"),
    "predictor-smooth": (lambda g: avsc_e2e.Predictor("absent", smooth="mean"), "'mean': give one of none, median, m"),
    "predictor-list": (lambda g: avsc_e2e.Predictor(g.model)([g.clip]), r"recording 1, \[.*: give a path"),
    "recording-list": (lambda g: avsc_e2e.Recording(audio=[0.0]), r"audio \[0.0\]: give a ndarray or None"),
    "recording-rate": (lambda g: avsc_e2e.Recording(FRAMES, frame_rate=0), "frame_rate 0: give a number above 0"),
    "stream-rate": (lambda g: avsc_e2e.SceneStream(g.model, sample_rate="8k"), "sample_rate '8k': give a whole"),
    "stream-negative": (lambda g: avsc_e2e.SceneStream(g.model, sample_rate=-1), "sample_rate -1: give 0 or more"),
    "stream-time": (lambda g: avsc_e2e.SceneStream(g.model).see(FRAMES[0], None), "time None: give a number"),
    "stream-frame": (lambda g: avsc_e2e.SceneStream(g.model).see([[0]], 0.0), r"a frame of shape \(1, 1\)"),
    "classifier-minutes": (
        lambda g: avsc_e2e.SceneClassifier(minutes="1").fit([g.clip, g.other], ["x", "y"]),
        "minutes '1': give a number",
    ),
    "classifier-none": (lambda g: avsc_e2e.SceneClassifier().fit([g.clip, g.other], ["x", None]), "the label None"),
    "classifier-text": (lambda g: avsc_e2e.SceneClassifier().fit([g.clip, g.other], "xy"), "y 'xy': give a list"),
    "classifier-twice": (lambda g: avsc_e2e.SceneClassifier().fit([g.clip] * 2, ["x", "y"]), "is given more than once"),
    "classifier-one": (lambda g: avsc_e2e.SceneClassifier().fit([g.clip, g.other], ["x", "x"]), "ngs of 1 class"),
    "classifier-recipe": (
        lambda g: avsc_e2e.SceneClassifier(recipe="zhang_ioa/audio").fit([g.clip, g.other], ["x", "y"]),
        "recipe 'zhang_ioa/audio': give a Recipe, or a list of Recipes",
    ),
    "classifier-recipes": (
        lambda g: avsc_e2e.SceneClassifier(recipe=[]).fit([g.clip, g.other], ["x", "y"]),
        r"recipe \[\]: give a Recipe",
    ),
    "load": (lambda g: avsc_e2e.load_model(None), "path None: give a path"),
    "save": (lambda g: avsc_e2e.save_model({"x": 1}, g.to / "x"), "model {'x': 1}: give a SceneNet or an Ensemble"),
    "save-notes": (lambda g: avsc_e2e.save_model(g.model, g.to / "x", {"a": 3}), "notes {'a': 3}: give a mapping"),
    "create": (lambda g: avsc_e2e.create_model(3), "name 3: give a text"),
    "create-size": (lambda g: avsc_e2e.create_model("tiny", size="big"), "model.size 'big': give a whole number"),
    "create-fusion": (lambda g: avsc_e2e.create_model("tiny", fusion="add"), "model.fusion 'add': give one of .*gated"),
    "create-classes": (lambda g: avsc_e2e.create_model("tiny", classes=(1, 2)), r"classes \(1, 2\): give a tuple"),
    "create-number": (lambda g: avsc_e2e.create_model("lite0", classes=3), "classes 3: give the names"),
    "create-text": (lambda g: avsc_e2e.create_model("lite0", classes="park"), "classes 'park': give the names"),
    "hub-path": (lambda g: avsc_e2e.Checkpoint(None), "path None: give a path"),
    "hub-card": (
        lambda g: avsc_e2e.Checkpoint(g.run).generate_model_card(dataset="x"),
        "model_card_kwargs: dataset is unknown; give data, data_licence, licence, use",
    ),
    "explain": (lambda g: avsc_e2e.explain(g.model, g.clip, windows=0), "^windows 0: give 1 or more"),
    "look": (lambda g: avsc_e2e.look(g.to, examples=-1), "^examples -1: give 0 or more"),
    "train": (lambda g: avsc_e2e.train("zhang_ioa/audio"), r"give a Recipe, such as avsc_e2e\.recipes"),
    "evaluate": (lambda g: avsc_e2e.evaluate("zhang_ioa/audio"), "give a Recipe"),
    "recipe-model": (lambda g: avsc_e2e.Recipe("x", model="zhang_ioa"), "model 'zhang_ioa': give an Architecture"),
    "recipe-epochs": (lambda g: avsc_e2e.Recipe("x", epochs="3"), "epochs '3': give a whole number"),
    "recipe-root": (lambda g: avsc_e2e.train(avsc_e2e.Recipe("x")), "^data.root is not given"),
    "corpus": (lambda g: avsc_e2e.read_corpus(g.to, test=2), "data.test 2: give from 0 to 1"),
    "rows": (lambda g: avsc_e2e.rows_from(None), "recordings None: give a list"),
    "pandas": (lambda g: avsc_e2e.to_pandas(3), "found 3: give a Corpus or a list or a Prediction or a SystemOutput"),
    "output": (lambda g: SystemOutput(("a",), ("x", "y"), np.zeros((2, 2))), r"probabilities of shape \(2, 2\)"),
    "sampling": (lambda g: avsc_e2e.Sampling(window=-1), "window -1: give a number of seconds above 0"),
    "dataset": (lambda g: avsc_e2e.ClipDataset("rows", ("x", "y"), avsc_e2e.Sampling()), "rows 'rows': give a list"),
    "export": (lambda g: export_checkpoint(g.run, g.to / "x", "tflite"), "form 'tflite': give one of onnx, torch-ex"),
    "export-precision": (
        lambda g: export_checkpoint(g.run, g.to / "x", precision="int4"),
        "precision 'int4': give one of fp32, fp16, int8",
    ),
    "store": (lambda g: open_store(None), "path None: give a path"),
    "prepare": (lambda g: prepare(g.to, g.to / "s", "256"), "options '256': give an Options"),
    "prepare-engine": (lambda g: prepare(g.to, g.to / "s", engine="spark"), "'spark': give one of local, ray"),
    "align": (lambda g: align(outputs()), "one is of segments, another of whole recordings"),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_wrong_calls_are_one_line_that_names_the_argument(given, call):
    wrong, message = CALLS[call]
    with pytest.raises(AvscError, match=message) as error:
        wrong(given)
    assert "\n" not in str(error.value)
    assert not re.search(r"(^|\s)--[a-z]", str(error.value))


def test_right_values_of_other_types_are_taken(given):
    """numpy's numbers, lists for tuples, paths as text."""
    assert avsc_e2e.Predictor(str(given.run), hop=np.float32(1), batch_size=np.int64(2)).batch_size == 2
    assert avsc_e2e.create_model("tiny", classes=["x", "y"]).architecture.heads == given.model.architecture.heads
    assert avsc_e2e.ClipDataset(avsc_e2e.rows_from([given.clip], ["x"]), np.array(["x"]), avsc_e2e.Sampling()).classes


def test_an_option_is_told_as_its_reader_has_it():
    error = AvscError("--data.on-bad stop: or --no-pretrained, `avsc train x --resume`, --heads.no-fit-decision")
    assert str(error) == "data.on_bad stop: or pretrained=False, `avsc train x --resume`, heads.fit_decision=False"
    assert f"{error}" == "--data.on-bad stop: or --no-pretrained, `avsc train x --resume`, --heads.no-fit-decision"
    assert f"{AvscError(f'file: {error}')}".startswith("file: --data.on-bad stop")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict --smoth median a b", "avsc predict: unknown option --smoth: did you mean --smooth?"),
        ("export a --precison=int8", "avsc export: unknown option --precison: did you mean --precision?"),
        ("data check x --no-fst", "avsc data check: unknown option --no-fst: did you mean --no-fast?"),
    ],
)
def test_a_mistyped_option_is_named_whatever_follows_it(line, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_one_line(given, capsys):
    soundfile.write(given.to / "long.wav", np.zeros(24000), 8000)
    with pytest.raises(SystemExit) as end:
        main(["predict", str(given.run), str(given.to / "long.wav"), "--format", "csv", "--out", "/dev/full"])
    assert end.value.code == 2
    line = "error: /dev/full: cannot be written (No space left on device): mend that and run it again\n"
    assert capsys.readouterr().err == line
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert end.value.code == 2
    line = "error: the output: cannot be written (No space left on device): make room and run it again\n"
    assert capsys.readouterr().err == line
    with pytest.raises(PermissionError), one_line_errors():  # a defect keeps its traceback
        raise PermissionError(errno.EACCES, "Permission denied")


QUICK = """
import sys
from avsc_e2e.cli import main
for line in sys.argv[1:]:
    try:
        main(line.split())
    except SystemExit as end:
        assert end.code == 2, line
    assert "torch" not in sys.modules, line
"""


def test_mistakes_are_told_before_torch_is_imported(tmp_path):
    """A mistake that needs no model to be found is told in a fifth of a second, not in five."""
    (tmp_path / "cut.safetensors").write_bytes((1000).to_bytes(8, "little") + b'{"weight": ')
    (tmp_path / "text.safetensors").write_text("This is no checkpoint.")
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "folder" / "class").mkdir(parents=True)
    (tmp_path / "folder" / "class" / "a.wav").touch()
    cases = {
        "predict cut.safetensors clip.mp4": "cut.safetensors: this checkpoint is cut off after 19 bytes; copy it again",
        "predict text.safetensors clip.mp4": "text.safetensors: is not a checkpoint of avsc_e2e",
        "predict cut.safetensors clip.mp4 --hop -1": "--hop -1: give 0 or more",
        "predict cut.safetensors clip.mp4 --batch-size 0": "--batch-size 0: give 1 or more",
        "predict cut.safetensors clip.mp4 --patience 0": "--patience 0: give seconds above 0",
        "predict cut.safetensors clip.mp4 --device gpu": "--device gpu: is no device; give cpu, cuda or cuda:N",
        "explain cut.safetensors clip.mp4 --device gpu": "--device gpu: is no device",
        "explain cut.safetensors clip.mp4 --grid 0": "--grid 0: give 1 or more",
        "export cut.safetensors no/m.onnx": "OUT no/m.onnx: there is no folder",
        "app cut.safetensors --device gpu": "--device gpu: is no device",
        "app cut.safetensors --port 70000": "--port 70000: give 0 to 65535",
        "models zhang_io": "no entry matches 'zhang_io'; did you mean zhang_ioa?",
        "train zhang_ioa/audio": "--data.root is not given",
        "evaluate zhang_ioa/audio": "--data.root is not given",
        "train folder --minutes 0": "--minutes 0: give a number of minutes above 0",
        "train folder --seed -1": "--seed -1: give 0 or more",
        "train clip.mp4": "clip.mp4: is a file; give the folder of the data set",
        "train own_videos/video --data.root=clip.mp4": "clip.mp4: is a file; give the folder of the data set",
        "evaluate zhang_ioa/hybrid --data.root nowhere": "nowhere: no such folder: give the root of the set",
        "submit zhang_ioa/hybrid --people people.toml": "people.toml: cannot be read",
    }
    command = [sys.executable, "-c", QUICK, *cases]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line, message in zip(done.stderr.splitlines(), cases.values(), strict=True):
        assert message in line
