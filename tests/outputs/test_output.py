import os

import numpy as np
import pytest
from support import real

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs import metrics
from avsc_e2e.outputs.names import city_of, location_of
from avsc_e2e.outputs.output import SystemOutput, align, join, read_output, read_outputs, to_clips, write_output
from avsc_e2e.outputs.reference import read_reference, targets_of

PLAIN = "filename\tscene_label\tbus\tpark\ntwo.wav\tpark\t0.4\t0.6\none.wav\tbus\t0.9\t0.1\n"


def table(tmp_path, text, name="output.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def example(n=6, k=3, start=False, seed=0):
    rng = np.random.default_rng(seed)
    classes = ("bus", "park", "tram")[:k]
    starts = np.tile(np.arange(2.0), n // 2) if start else None
    files = tuple(f"bus-rome-{i // 2 if start else i}-7.wav" for i in range(n))
    return SystemOutput(files, classes, rng.dirichlet(np.ones(k), n), starts)


def same(one, other):
    assert (one.files, one.classes, one.predicted) == (other.files, other.classes, other.predicted)
    assert np.allclose(one.probabilities, other.probabilities, rtol=1e-8, atol=0)
    assert (one.start is None) == (other.start is None)
    assert one.start is None or np.array_equal(one.start, other.start)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\t", ","),
        PLAIN.replace("\t", ";"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        PLAIN.rstrip("\n"),
        "\n" + PLAIN + "\n\n",
        "park\taid\tbus\tscene_label\n0.6\ttwo.wav\t0.4\tpark\n0.1\tone.wav\t0.9\tbus\n",
        "file,bus,park\ntwo.wav,0.4,0.6\none.wav,0.9,0.1\n",
        'filename,"bus","park"\n"two.wav",0.4,0.6\n"one.wav", 9e-1 ,.1\n',
        "aid\tscene_pred\tscene_label\tbus\tpark\ntwo.wav\tpark\tbus\t0.4\t0.6\none.wav\tbus\tbus\t0.9\t0.1\n",
        "filename\tcity\tscene_label\tbus\tpark\ntwo.wav\trome\tpark\t0.4\t0.6\none.wav\trome\tbus\t0.9\t0.1\n",
    ],
)
def test_the_same_table_in_many_shapes(tmp_path, text):
    output = read_output(table(tmp_path, text))
    assert output.files == ("two.wav", "one.wav")
    assert output.classes == ("bus", "park")
    assert output.probabilities.tolist() == [[0.4, 0.6], [0.9, 0.1]]
    assert output.start is None
    assert output.predicted is None
    assert output.decisions.tolist() == [1, 0]


def test_classes_are_mapped_by_name(tmp_path):
    output = read_output(table(tmp_path, PLAIN), classes=("park", "bus"))
    assert output.classes == ("park", "bus")
    assert output.probabilities.tolist() == [[0.6, 0.4], [0.1, 0.9]]
    assert output.decisions.tolist() == [0, 1]


def test_own_decisions_are_kept(tmp_path):
    output = read_output(table(tmp_path, "filename\tscene_label\tbus\tpark\na\tpark\t0.5\t0.5\nb\tbus\t0.5\t0.5\n"))
    assert output.predicted == ("park", "bus")
    assert output.decisions.tolist() == [1, 0]
    write_output(tmp_path / "again.csv", output)
    same(read_output(tmp_path / "again.csv"), output)


@pytest.mark.parametrize("start", [False, True])
def test_written_and_read_back(tmp_path, start):
    output = example(start=start)
    write_output(tmp_path / "new" / "output.csv", output)
    same(read_output(tmp_path / "new" / "output.csv"), output)
    header = (tmp_path / "new" / "output.csv").read_text().split("\n")[0].split("\t")
    assert header == ["filename", *(["start"] if start else []), "scene_label", "bus", "park", "tram"]


def test_float32_comes_back_as_it_was(tmp_path):
    tiny = np.array([[1 - 3e-7, 3e-7 - 1e-12, 1e-12]], dtype=np.float32)
    write_output(tmp_path / "o.csv", SystemOutput(("a",), ("x", "y", "z"), tiny.astype(np.float64)))
    assert np.array_equal(read_output(tmp_path / "o.csv").probabilities.astype(np.float32), tiny)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "output.csv"
    write_output(path, example())
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_output(path, example(seed=1))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["output.csv"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (PLAIN + "three.wav\tbus\tnan\t1\n", 4, "NaN"),
        (PLAIN + "three.wav\tbus\tinf\t0\n", 4, "infinite"),
        (PLAIN + "three.wav\tbus\t1.1\t-0.1\n", 4, "negative"),
        (PLAIN + "three.wav\tbus\t0.8\t0.1\n", 4, "sum to 0.9"),
        (PLAIN + "three.wav\ttrain\t0.9\t0.1\n", 4, "unknown scene 'train'"),
        (PLAIN + "three.wav\tbus\t0.9\n", 4, "3 values for 4 columns"),
        (PLAIN + "three.wav\tbus\thigh\t0.1\n", 4, "bus is 'high', which is not a number"),
        (PLAIN + "one.wav\tbus\t0.9\t0.1\n", 4, "one.wav is already in line 3"),
        (PLAIN + "one.mp4\tbus\t0.9\t0.1\n", 4, "one.mp4 is already in line 3"),
        (PLAIN + "\tbus\t0.9\t0.1\n", 4, "the file name is empty"),
        (PLAIN + "\n\nthree.wav\tbus\t0.8\t0.1\n", 6, "sum to 0.9"),
        ("filename\tbus\tbus\na\t1\t0\n", 1, "column 'bus' occurs twice"),
        ("filename\tbus\na\t1\n", 1, "1 class columns"),
        ("name\tbus\tpark\na\t1\t0\n", 1, "no column of the file names"),
        ("filename\tstart\tbus\tpark\na\t0\t1\t0\na\t0.0\t1\t0\n", 3, "a is already in line 2"),
        ("filename\tstart\tbus\tpark\na\t-1\t1\t0\n", 2, "start"),
    ],
)
def test_defects_are_refused_with_their_line(tmp_path, text, line, reason):
    path = table(tmp_path, text)
    with pytest.raises(AvscError) as caught:
        read_output(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert reason in message
    assert "\n" not in message


def test_sums_within_one_per_cent_are_taken_as_they_are(tmp_path):
    output = read_output(table(tmp_path, "filename\tbus\tpark\na\t0.997\t0.0\n"))
    assert output.probabilities.tolist() == [[0.997, 0.0]]


def test_wanted_classes_must_be_those_of_the_file(tmp_path):
    path = table(tmp_path, PLAIN)
    with pytest.raises(AvscError, match="no column for tram"):
        read_output(path, classes=("bus", "park", "tram"))
    with pytest.raises(AvscError, match="unknown scene park"):
        read_output(path, classes=("bus",))


@pytest.mark.parametrize("content", [b"", b"\n", b"filename\tbus\tpark\n", b"\xff\xfe\x00b", b"RIFF\x80\x81WAVE"])
def test_files_that_are_no_tables(tmp_path, content):
    path = table(tmp_path, content)
    with pytest.raises(AvscError, match=r"output\.csv: "):
        read_output(path)


def test_missing_file(tmp_path):
    with pytest.raises(AvscError, match=r"absent\.csv: cannot be read"):
        read_output(tmp_path / "absent.csv")


def test_nothing_unreadable_is_written(tmp_path):
    for bad in (np.nan, np.inf, -0.5):
        with pytest.raises(AvscError, match="not written"):
            write_output(tmp_path / "o.csv", SystemOutput(("a",), ("x", "y"), np.array([[bad, 1.0]])))
    with pytest.raises(AvscError, match="tab"):
        write_output(tmp_path / "o.csv", SystemOutput(("a\tb",), ("x", "y"), np.array([[0.0, 1.0]])))
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    "text",
    [
        "filename_audio\tfilename_video\tscene_label\tidentifier\naudio/a-b-1-2.wav\tvideo/a-b-1-2.mp4\tpark\tb-1\n",
        "filename\tscene_label\na-b-1-2.wav\tpark\n",
        "\ufefffile,label\r\nsome/folder/a-b-1-2.mp4,park\r\n",
        "aid\tscene_pred\tscene_label\tbus\tpark\na-b-1-2\tbus\tpark\t0.9\t0.1\n",
        "filename\tstart\tscene_pred\tscene_label\tbus\tpark\na-b-1-2\t0\tbus\tpark\t1\t0\na-b-1-2\t1\tbus\tpark\t1\t0\n",
    ],
)
def test_references(tmp_path, text):
    assert read_reference(table(tmp_path, text)) == {"a-b-1-2": "park"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PLAIN, "its scene_label is the decision"),
        ("filename_audio\tfilename_video\na.wav\ta.mp4\n", "no column of the true scenes"),
        ("filename\tscene_label\na.wav\tpark\na.mp4\tbus\n", "line 3: a.mp4 has another scene"),
        ("filename\tscene_label\na.wav\t\n", "line 2: the scene is empty"),
    ],
)
def test_what_is_no_reference(tmp_path, text, reason):
    with pytest.raises(AvscError, match=reason):
        read_reference(table(tmp_path, text))


def test_equal_base_names_keep_their_folders(tmp_path):
    reference = read_reference(
        table(tmp_path, "file,label\nSurfing/1.mp4,Surfing\nArchery/1.mp4,Archery\nx/2.mp4,Surfing\n")
    )
    assert reference == {"Surfing/1": "Surfing", "Archery/1": "Archery", "2": "Surfing"}
    output = SystemOutput(("Archery/1.mp4", "Surfing/1.mp4", "2.mp4"), ("Archery", "Surfing"), np.full((3, 2), 0.5))
    assert targets_of(output, reference).tolist() == [0, 1, 1]


def test_targets_by_name(tmp_path):
    output = example(4)
    reference = {"bus-rome-3-7": "tram", "bus-rome-0-7": "bus", "bus-rome-2-7": "park", "bus-rome-1-7": "park"}
    assert targets_of(output, reference).tolist() == [0, 1, 1, 2]
    assert targets_of(output, {f"{name}.wav": scene for name, scene in reference.items()}).tolist() == [0, 1, 1, 2]
    with pytest.raises(AvscError, match=r"no scene for bus-rome-3-7\.wav"):
        targets_of(output, {name: scene for name, scene in reference.items() if "3" not in name})
    with pytest.raises(AvscError, match="is of scene 'beach'"):
        targets_of(output, {**reference, "bus-rome-2-7": "beach"})


def test_clips_of_segments():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.2, 0.8]])
    output = SystemOutput(("b", "a", "b", "a"), ("x", "y"), probabilities, np.array([0.0, 0, 1, 1]))
    clips = to_clips(output)
    assert clips.files == ("b", "a")
    assert clips.start is None
    assert clips.probabilities == pytest.approx(np.array([[0.7, 0.3], [0.2, 0.8]]))
    product = np.sqrt([[0.9 * 0.5, 0.1 * 0.5], [0.04, 0.64]])
    assert to_clips(output, by="log").probabilities == pytest.approx(product / product.sum(1, keepdims=True))
    zero = SystemOutput(("a", "a"), ("x", "y"), np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0.0, 1.0]))
    odds = np.sqrt(1e-15 * 0.5) / np.sqrt(0.5)  # of x against y: a zero counts as 1e-15, not as nothing
    assert to_clips(zero, by="log").probabilities[0, 0] == pytest.approx(odds / (1 + odds), rel=1e-6)
    with pytest.raises(AvscError, match="'median'"):
        to_clips(output, by="median")


def test_aligned_by_name():
    one = example(6, start=True)
    order, columns = [3, 1, 0, 2, 5, 4], [2, 0, 1]
    files = tuple(one.files[i].replace(".wav", ".mp4") for i in order)
    classes = tuple(one.classes[i] for i in columns)
    probabilities = one.probabilities[np.ix_(order, columns)]
    other = SystemOutput(files, classes, probabilities, one.start[order], tuple(f"p{i}" for i in order))
    first, second = align([one, other])
    assert first is one
    same(second, SystemOutput(one.files, one.classes, one.probabilities, one.start, tuple(f"p{i}" for i in range(6))))


def test_what_does_not_align():
    one = example(6)
    less = SystemOutput(one.files[:5], one.classes, one.probabilities[:5])
    with pytest.raises(AvscError, match=r"1 rows are not in both of two, the first is bus-rome-5-7"):
        align([one, less])
    renamed = SystemOutput(one.files, ("bus", "park", "metro"), one.probabilities)
    with pytest.raises(AvscError, match="metro, tram"):
        align([one, renamed])


def test_parts_of_several_processes_score_as_one():
    whole = example(8, start=True)
    shares = [[0, 3, 6, 0], [1, 4, 7, 1], [2, 5, 2, 5]]  # a sampler fills its last batch by repeating rows
    parts = [
        SystemOutput(tuple(whole.files[i] for i in rows), whole.classes, whole.probabilities[rows], whole.start[rows])
        for rows in shares
    ]
    joined = join(parts)
    assert len(joined) == len(whole)
    reference = {f"bus-rome-{i}-7": whole.classes[i % 3] for i in range(4)}
    scores = [
        metrics.score(one.probabilities, targets_of(one, reference), one.classes) for one in (join([whole]), joined)
    ]
    assert scores[0].to_json() == scores[1].to_json()  # bit for bit
    with pytest.raises(AvscError, match="parts"):
        join([])


def test_places_of_names():
    name = "street_traffic-lyon-1029-40200"
    assert location_of(name) == location_of(f"audio/{name}.wav") == location_of(f"{name}-a.wav") == "lyon-1029"
    assert city_of(f"video/{name}.mp4") == "lyon"
    assert location_of("Archery/v_Archery_g01_c01.avi") == "Archery/v_Archery_g01_c01.avi"
    assert location_of("17.wav") == city_of("17.wav") == "17.wav"


def test_several_outputs_by_their_names(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        table(tmp_path / folder, PLAIN)
    path = table(tmp_path, PLAIN, "other.csv")
    assert list(read_outputs([tmp_path / "x" / "output.csv", path])) == ["output", "other"]
    both = [tmp_path / "x" / "output.csv", tmp_path / "y" / "output.csv"]
    assert list(read_outputs(both)) == ["x", "y"]
    assert list(read_outputs([f"mine={both[0]}", both[1]])) == ["mine", "output"]
    deep = [tmp_path / "runs" / system / "hybrid" / "evaluation" / "segments.csv" for system in ("a", "b")]
    for one in deep:
        one.parent.mkdir(parents=True)
        table(one.parent, PLAIN, one.name)
    assert list(read_outputs(deep)) == ["a", "b"]
    assert list(read_outputs([*deep, path])) == [
        "runs/a/hybrid/evaluation/segments",
        "runs/b/hybrid/evaluation/segments",
        "other",
    ]
    with pytest.raises(AvscError, match="mine is given twice"):
        read_outputs([f"mine={both[0]}", f"mine={both[1]}"])
    with pytest.raises(AvscError, match="given twice"):
        read_outputs([path, path])


@pytest.mark.parametrize(
    ("name", "log_loss", "accuracy"),
    [
        ("audio_only", 0.8029, 0.7094),
        ("video_only", 0.9557, 0.6412),
        ("early_fusion", 0.5811, 0.7867),
        ("late_fusion", 0.5538, 0.8174),
        ("baseline", 0.5394, 0.8072),
    ],
)
def test_real_systems(name, log_loss, accuracy):
    output = read_output(real(f"system_outputs/{name}.csv"))
    reference = read_reference(real("tau_urban_audio_visual_scenes_2021/evaluation_setup/fold1_evaluate.csv"))
    assert reference == read_reference(real(f"system_outputs/{name}.csv"))
    targets = targets_of(output, reference)
    scores = metrics.score(output.probabilities, targets, output.classes, "10 s clips", output.decisions)
    assert round(scores.log_loss, 4) == log_loss
    assert round(scores.accuracy, 4) == accuracy
    assert len({location_of(file) for file in output.files}) == 126


def test_a_join_keeps_decisions_of_which_one_part_has_its_own():
    own = SystemOutput(("b", "c"), ("x", "y"), np.array([[0.5, 0.5], [0.6, 0.4]]), predicted=("y", "y"))
    plain = SystemOutput(("a", "d"), ("x", "y"), np.array([[0.2, 0.8], [0.9, 0.1]]))
    for parts in ([own, plain], [plain, own]):
        joined = join(parts)
        assert joined.files == ("a", "b", "c", "d")
        assert joined.predicted == ("y", "y", "y", "x")
    assert join([plain, plain]).predicted is None
