import re
import zipfile
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import yaml

from avsc_e2e.clip import SCENES
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.outputs.metrics import score
from avsc_e2e.outputs.output import SystemOutput, format_output
from avsc_e2e.submission.check import check
from avsc_e2e.submission.entry import Complexity, Description, ExternalDataset, System, describe
from avsc_e2e.submission.metafile import check_meta
from avsc_e2e.submission.outputfile import ROWS, check_output
from avsc_e2e.submission.package import meta_yaml, pack
from avsc_e2e.submission.people import Affiliation, Person
from avsc_e2e.submission.violation import listing

FILES = {f"{i}.wav" for i in range(20)}
PEOPLE = (
    Person(
        "Häme", "Aino", "aino@tau.fi", Affiliation("Tampere University", "TAU", "Computing", "Tampere, Finland"), True
    ),
    Person("Doe", "Jo", "jo@tau.fi", Affiliation("Tampere University")),
)
LABEL = "Hame_TAU_task1b_1"
REPORT = b"%PDF-1.4\n%%EOF\n"


def output(n=20, seed=0):
    rng = np.random.default_rng(seed)
    order = [f"{i}.wav" for i in rng.permutation(n)]
    return SystemOutput(tuple(order), SCENES, rng.dirichlet(np.full(10, 0.3), n))


def system(seed=0, n=20):
    rng = np.random.default_rng(seed)
    probabilities, targets = rng.dirichlet(np.ones(10), 200), np.arange(200) % 10
    return System(
        name="Hybrid of log-mel and EfficientNet",
        abbreviation="hybrid",
        output=output(n, seed),
        scores=score(probabilities, targets, SCENES, "1 s segments"),
        complexity=Complexity(1000, 400, 600),
        description=describe(Architecture(), augmentation=("mixup", "SpecAugment"), pretrained=("ImageNet",)),
        external_datasets=(ExternalDataset("ImageNet", "http://www.image-net.org", None),),
    )


def good_csv():
    return format_output(output())


def good_meta():
    return meta_yaml(LABEL, system(), PEOPLE)


def report_file(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(REPORT)
    return path


def test_packed_checked_and_read(tmp_path):
    path = pack(tmp_path / "p.zip", [system(i) for i in range(4)], PEOPLE, report_file(tmp_path), files=FILES)
    assert check(path, FILES) == []
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        labels = [f"Hame_TAU_task1b_{n}" for n in (1, 2, 3, 4)]
        base = "Hame_TAU_task1b/task1"
        assert set(names) == {
            *(f"{base}/{label}/{label}.{kind}" for label in labels for kind in ("output.csv", "meta.yaml")),
            f"{base}/Hame_TAU_task1_technical_report.pdf",
        }
        meta = yaml.safe_load(archive.read(f"{base}/{LABEL}/{LABEL}.meta.yaml"))
        assert archive.read(f"{base}/{LABEL}/{LABEL}.output.csv").decode() == good_csv()
    scores = system().scores
    results = meta["results"]["development_dataset"]
    assert results["overall"]["logloss"] == pytest.approx(scores.log_loss, abs=1e-4)
    assert results["overall"]["accuracy"] == pytest.approx(100 * scores.accuracy, abs=0.01)
    assert list(results["class_wise"]) == list(SCENES)
    assert results["class_wise"]["tram"]["logloss"] == pytest.approx(scores.class_log_loss[9], abs=1e-4)
    assert meta["submission"]["label"] == LABEL
    assert [author.get("corresponding") for author in meta["submission"]["authors"]] == [True, None]
    assert meta["system"]["complexity"]["total_parameters"] == 1000
    assert meta["system"]["source_code"] is None
    description = meta["system"]["description"]
    assert description["input_sampling_rate"] == "48kHz"
    assert description["data_augmentation"] == "mixup, SpecAugment"
    assert description["ensemble_method_subsystem_count"] is None


def test_the_same_bytes_again(tmp_path):
    one = pack(tmp_path / "one.zip", [system()], PEOPLE, files=FILES).read_bytes()
    assert pack(tmp_path / "two.zip", [system()], PEOPLE, files=FILES).read_bytes() == one
    assert pack(tmp_path / "three.zip", [system(1)], PEOPLE, files=FILES).read_bytes() != one
    assert sorted(item.name for item in tmp_path.iterdir()) == ["one.zip", "three.zip", "two.zip"]


def test_a_folder_is_the_same_package(tmp_path):
    pack(tmp_path / "folder", [system()], PEOPLE, report_file(tmp_path), files=FILES)
    assert check(tmp_path / "folder", FILES) == []
    assert check(tmp_path / "folder" / "Hame_TAU_task1b", FILES) == []
    single = tmp_path / "folder" / "Hame_TAU_task1b" / "task1" / LABEL
    assert check(single / f"{LABEL}.output.csv", FILES) == []
    assert check(single / f"{LABEL}.meta.yaml") == []


def test_unknown_is_written_as_the_challenge_does():
    text = good_meta()
    assert "  source_code: !!null\n" in text
    assert re.search(r"ensemble_method_subsystem_count: !!null\n", text)
    odd = replace(system(), name="null", source_code="line: null\nother: null")
    assert yaml.safe_load(meta_yaml(LABEL, odd, PEOPLE))["submission"]["name"] == "null"
    assert yaml.safe_load(meta_yaml(LABEL, odd, PEOPLE))["system"]["source_code"] == "line: null other: null"


def test_columns_follow_the_challenge_whatever_the_model_has(tmp_path):
    turned = output()
    turned = SystemOutput(turned.files, SCENES[::-1], turned.probabilities[:, ::-1], np.zeros(20))
    one = pack(tmp_path / "one.zip", [system()], PEOPLE, files=FILES).read_bytes()
    two = pack(tmp_path / "two.zip", [replace(system(), output=turned)], PEOPLE, files=FILES).read_bytes()
    assert one == two


def test_what_cannot_be_packed(tmp_path):
    path = tmp_path / "p.zip"
    with pytest.raises(AvscError, match="5 systems"):
        pack(path, [system()] * 5, PEOPLE, files=FILES)
    with pytest.raises(AvscError, match="0 systems"):
        pack(path, [], PEOPLE, files=FILES)
    with pytest.raises(AvscError, match="no author"):
        pack(path, [system()], (), files=FILES)
    others = SystemOutput(("0.wav",), ("a", "b"), np.full((1, 2), 0.5))
    with pytest.raises(AvscError, match="not of the ten scenes"):
        pack(path, [replace(system(), output=others)], PEOPLE, files=FILES)
    segments = replace(output(), start=np.arange(20.0))
    with pytest.raises(AvscError, match="rows of segments"):
        pack(path, [replace(system(), output=segments)], PEOPLE, files=FILES)
    with pytest.raises(AvscError, match=r"71980 of 72000 files have no row: 20\.wav"):
        pack(path, [system()], PEOPLE)
    with pytest.raises(AvscError, match=r"abbreviation has more than 10 characters; .*total_parameters must be"):
        pack(path, [replace(system(), abbreviation="much too long", complexity=Complexity())], PEOPLE, files=FILES)
    with pytest.raises(AvscError, match=r"no\.pdf: cannot be read"):
        pack(path, [system()], PEOPLE, tmp_path / "no.pdf", files=FILES)
    assert not list(tmp_path.iterdir())


def edited(number, change):
    """The good output with line `number` (from 1) changed."""
    lines = good_csv().split("\n")
    lines[number - 1] = change(lines[number - 1])
    return "\n".join(lines)


def cells(index, value):
    def change(line):
        parts = line.split("\t")
        parts[index] = value if isinstance(value, str) else value(parts)
        return "\t".join(parts)

    return change


def renamed(name):
    return edited(5, cells(0, name)), 5


def plain(line, label="airport", values="1 0 0 0 0 0 0 0 0 0"):
    return "\t".join([line.split("\t")[0], label, *values.split()])


CSV_DEFECTS = {
    "unknown column": (edited(1, lambda line: line.replace("tram", "train")), 1, "unknown column 'train'"),
    "missing column": (edited(1, lambda line: line.replace("\ttram", "")), 1, "no column tram"),
    "column twice": (edited(1, lambda line: line.replace("tram", "bus")), 1, "column bus occurs 2 times"),
    "column order": (edited(1, lambda line: line.replace("airport\tbus", "bus\tairport")), 1, "must be in the order"),
    "no header": (good_csv().split("\n", 1)[1], 1, "unknown column"),
    "commas": (good_csv().replace("\t", ","), 1, "not separated by tabs"),
    "byte order mark": ("\ufeff" + good_csv(), 1, "byte order mark"),
    "empty line": (edited(4, lambda line: line + "\n"), 5, "is empty"),
    "value missing": (edited(6, lambda line: line.rsplit("\t", 1)[0]), 6, "11 values for 12 columns"),
    "value too many": (edited(6, lambda line: line + "\t0"), 6, "13 values for 12 columns"),
    "a file twice": (edited(9, cells(0, output().files[2])), 9, "is already in line 4"),
    "not .wav": (*renamed("3.mp4"), "does not end in .wav"),
    "no extension": (*renamed("3"), "does not end in .wav"),
    "a path": (*renamed(f"audio/{output().files[3]}"), "must be the base name"),
    "no integer": (*renamed("three.wav"), "is not an integer"),
    "negative integer": (*renamed("-3.wav"), "is not an integer"),
    "leading zeros": (*renamed("003.wav"), "has leading zeros"),
    "out of range": (*renamed("72000.wav"), "out of range"),
    "spaces": (*renamed(f" {output().files[3]}"), "has spaces"),
    "no name": (*renamed(""), "the file name is empty"),
    "unknown scene": (edited(7, cells(1, "metro-station")), 7, "unknown scene 'metro-station'"),
    "no scene": (edited(7, cells(1, "")), 7, "unknown scene ''"),
    "not a number": (edited(8, cells(4, "0,5")), 8, "'0,5' is not a number"),
    "no number": (edited(8, cells(4, "")), 8, "'' is not a number"),
    "NaN": (edited(8, cells(4, "nan")), 8, "is NaN"),
    "infinite": (edited(8, cells(4, "inf")), 8, "is infinite"),
    "negative": (edited(8, lambda line: plain(line, values=".6 -0.1 .5 0 0 0 0 0 0 0")), 8, "is negative"),
    "above one": (edited(8, lambda line: plain(line, values="1.1 0 0 0 0 0 0 0 0 0")), 8, "is above 1"),
    "sum too low": (edited(8, lambda line: plain(line, values=".9 0 0 0 0 0 0 0 0 0")), 8, "sum to 0.9, not to 1"),
    "sum too high": (edited(8, lambda line: plain(line, values=".9 .2 0 0 0 0 0 0 0 0")), 8, "sum to 1.1, not to 1"),
    "not arg-max": (edited(8, lambda line: plain(line, "bus")), 8, "label bus is not the most probable scene, airport"),
}


@pytest.mark.parametrize("defect", CSV_DEFECTS)
def test_defects_of_an_output(tmp_path, defect):
    text, line, reason = CSV_DEFECTS[defect]
    path = tmp_path / f"{LABEL}.output.csv"
    path.write_bytes(text.encode())
    challenge = None if "range" in reason or ".wav" in reason or "integer" in reason or "zeros" in reason else FILES
    found = check(path, challenge)
    assert any(item.line == line and reason in item.reason for item in found), listing(found)
    assert all("\n" not in str(item) for item in found)
    told = [item for item in found if item.line]
    assert len(told) == 1 or defect in ("no header", "column twice", "unknown column", "missing column"), listing(told)


def test_a_missing_row_and_an_empty_file():
    lines = good_csv().split("\n")
    found = list(check_output("\n".join(lines[:5] + lines[6:]).encode(), "o.csv", FILES))
    assert [str(item) for item in found] == [f"o.csv: 1 of 20 files have no row: {lines[5].split(chr(9))[0]}"]
    assert [item.reason for item in check_output(b"", "o.csv", FILES)] == ["is empty"]
    assert [item.line for item in check_output(good_csv().encode()[:300] + b"\xff", "o.csv", FILES)] == [3]


def test_every_violation_is_told_at_once_in_order():
    text = good_csv().split("\n")
    text[2] = cells(1, "beach")(text[2])
    text[4] = cells(3, "nan")(text[4])
    text[6] = text[6] + "\t1"
    text[8] = plain(text[8], "tram")
    found = list(check_output("\n".join(text).encode(), "o.csv", FILES))
    assert sorted(item.line for item in found) == [0, 3, 5, 7, 9]
    assert listing(found, most=2).splitlines()[-1] == "and 3 more"


def test_line_ends_of_windows_and_ties_are_fine():
    assert list(check_output(good_csv().replace("\n", "\r\n").encode(), "o.csv", FILES)) == []
    tied = edited(8, lambda line: plain(line, "bus", ".5 .5 0 0 0 0 0 0 0 0"))
    assert list(check_output(tied.encode(), "o.csv", FILES)) == []


def test_the_whole_evaluation_set():
    rng = np.random.default_rng(0)
    whole = SystemOutput(tuple(f"{i}.wav" for i in range(ROWS)), SCENES, rng.dirichlet(np.ones(10), ROWS))
    text = format_output(whole)
    assert list(check_output(text.encode(), "o.csv")) == []
    lines = text.split("\n")
    lines[50_000] = lines[49_999]
    found = list(check_output("\n".join(lines).encode(), "o.csv"))
    assert [(item.line, item.reason) for item in found] == [
        (50_001, "49998.wav is already in line 50000"),
        (0, "1 of 72000 files have no row: 49999.wav"),
    ]


def put(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new, 1), text[: text.index(old)].count("\n") + 1

    return change


YAML_DEFECTS = {
    "not YAML": (put("  name:", "  name: ["), "is not YAML"),
    "tab": (put("  name:", "\tname:"), "is not YAML"),
    "other label": (put(LABEL, "Hame_TAU_task1b_2"), "is not that of the file"),
    "label of three parts": (put(LABEL, "Hame_task1b_1"), "exactly four parts"),
    "label of five parts": (put(LABEL, "van_Hame_TAU_task1b_1"), "exactly four parts"),
    "label with a dot": (put(LABEL, "Hame_TAU.fi_task1b_1"), "exactly four parts"),
    "label of another task": (put(LABEL, "Hame_TAU_task1a_1"), "exactly four parts"),
    "label 5": (put(LABEL, "Hame_TAU_task1b_5"), "N is 1 to 4"),
    "label 0": (put(LABEL, "Hame_TAU_task1b_0"), "exactly four parts"),
    "long abbreviation": (put("abbreviation: hybrid", "abbreviation: hybrid_of_two"), "more than 10 characters"),
    "no name": (put("name: Hybrid of log-mel and EfficientNet", "name:"), "submission.name is empty"),
    "key twice": (put("  abbreviation: hybrid", "  name: again"), "name occurs twice"),
    "unknown key": (put("  source_code:", "  sourcecode:"), "unknown key 'sourcecode'"),
    "no e-mail": (put("aino@tau.fi", "aino at tau.fi"), "is not an e-mail address"),
    "no first name": (put("firstname: Aino", "firstname: !!null"), "firstname is empty"),
    "corresponding": (put("corresponding: true", "corresponding: maybe"), "must be true or false"),
    "parameters as text": (put("total_parameters: 1000", "total_parameters: 1 k"), "must be a whole number"),
    "parameters not known": (put("total_parameters: 1000", "total_parameters: !!null"), "must be a whole number"),
    "parameters negative": (put("parameters_audio: 400", "parameters_audio: -400"), "must be a whole number"),
    "subsystems as text": (put("subsystem_count: !!null", "subsystem_count: two"), "must be a whole number or !!null"),
    "data sets as text": (put("external_datasets:\n  - name:", "external_datasets:\n  - nom:"), "unknown key 'nom'"),
    "no log loss": (put("logloss:", "logloss: !!null #"), "overall logloss is not given"),
    "log loss as text": (put("logloss:", "logloss: low #"), "is 'low', not a number"),
    "log loss NaN": (put("logloss:", "logloss: .nan #"), "not within 0 to 1000"),
    "negative log loss": (put("logloss:", "logloss: -1 #"), "not within 0 to 1000"),
    "accuracy above 100": (put("accuracy:", "accuracy: 101 #"), "not within 0 to 100"),
    "overall is not the mean": (put("accuracy:", "accuracy: 99 #"), "is not the classes' mean"),
    "scene missing": (put("      tram:", "      train:"), "unknown key 'train'"),
}


@pytest.mark.parametrize("defect", YAML_DEFECTS)
def test_defects_of_a_meta_file(defect):
    change, reason = YAML_DEFECTS[defect]
    text, line = change(good_meta())
    found = list(check_meta(text.encode(), f"{LABEL}.meta.yaml", LABEL))
    assert any(reason in item.reason for item in found), listing(found)
    assert any(abs(item.line - line) <= 1 for item in found), (line, listing(found))


@pytest.mark.parametrize(("figure", "refused", "taken"), [("accuracy", 1.0, 0.1), ("logloss", 0.05, 0.005)])
def test_overall_figures_are_the_mean_of_the_classes(figure, refused, taken):
    """A rounded mean passes; one that is off by a per cent, or by 0.05 nats, does not."""
    for change, found in ((refused, True), (-refused, True), (taken, False), (-taken, False)):
        meta = yaml.safe_load(good_meta())
        meta["results"]["development_dataset"]["overall"][figure] += change
        reasons = listing([*check_meta(yaml.safe_dump(meta).encode(), f"{LABEL}.meta.yaml", LABEL)])
        assert (f"overall {figure}" in reasons and "is not the classes' mean" in reasons) is found, (change, reasons)


def test_missing_keys_are_told_where_they_belong():
    document = yaml.safe_load(good_meta())
    del document["system"]["description"]["decision_making"]
    del document["submission"]["authors"][1]["affiliation"]["location"]
    del document["results"]["development_dataset"]["class_wise"]["park"]
    document["submission"]["authors"][0].pop("corresponding")
    text = yaml.safe_dump(document, sort_keys=False)
    reasons = "\n".join(item.reason for item in check_meta(text.encode(), "m.yaml", LABEL))
    for reason in (
        "system.description has no decision_making",
        "an affiliation has no location",
        "class_wise has no park",
        "0 authors have corresponding: true",
    ):
        assert reason in reasons
    for text in (
        b"",
        b"a list\n",
        b"- 1\n- 2\n",
        b"? [a]\n: 1\n",
        b"&a [*a]\n",
        b"submission: !!python/object:os.x {}\n",
    ):
        assert list(check_meta(text, "m.yaml", LABEL))


def test_shares_for_per_cent():
    document = yaml.safe_load(good_meta())
    results = document["results"]["development_dataset"]
    for scores in (results["overall"], *results["class_wise"].values()):
        scores["accuracy"] = scores["accuracy"] / 100
    found = list(check_meta(yaml.safe_dump(document).encode(), "m.yaml", LABEL))
    assert [item.reason for item in found] == ["accuracies are shares; they must be in per cent"]


def package(**changes):
    base = "Hame_TAU_task1b/task1"
    entries = {
        f"{base}/{LABEL}/{LABEL}.output.csv": good_csv().encode(),
        f"{base}/{LABEL}/{LABEL}.meta.yaml": good_meta().encode(),
        f"{base}/Hame_TAU_task1_technical_report.pdf": REPORT,
    }
    return {name: data for name, data in {**entries, **changes}.items() if data is not None}


BASE = "Hame_TAU_task1b/task1"
PACKAGE_DEFECTS = {
    "stray file": ({f"{BASE}/{LABEL}/notes.txt": b"x"}, "nothing else"),
    "file of an operating system": ({"__MACOSX/x": b"x"}, "does not belong here"),
    "no output": ({f"{BASE}/{LABEL}/{LABEL}.output.csv": None}, f"has no {LABEL}.output.csv"),
    "no meta": ({f"{BASE}/{LABEL}/{LABEL}.meta.yaml": None}, f"has no {LABEL}.meta.yaml"),
    "no report": ({f"{BASE}/Hame_TAU_task1_technical_report.pdf": None}, "technical_report.pdf"),
    "name of the report": ({f"{BASE}/report.pdf": REPORT}, "a report is called"),
    "report of another": ({f"{BASE}/Doe_TAU_task1_technical_report.pdf": REPORT}, "is not of the team"),
    "report is no PDF": ({f"{BASE}/Hame_TAU_task1_technical_report.pdf": b"text"}, "is not a PDF"),
    "way out": ({f"{BASE}/../../x.csv": b"x"}, "leaves the archive"),
    "too many": ({f"{BASE}/Hame_TAU_task1b_{n}/x": b"" for n in (2, 3, 4, 5)}, "5 systems; 4 are allowed"),
    "label of a folder": ({f"{BASE}/Hame_task1b_1/x": b""}, "exactly four parts"),
    "two teams": ({f"{BASE}/Doe_TAU_task1b_1/x": b""}, "more than one team"),
    "two roots": ({f"other/task1/{LABEL}/x": b""}, "more than one root"),
}


@pytest.mark.parametrize("defect", PACKAGE_DEFECTS)
def test_defects_of_a_package(tmp_path, defect):
    changes, reason = PACKAGE_DEFECTS[defect]
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in package(**changes).items():
            archive.writestr(name, data)
    found = check(path, FILES)
    assert any(reason in item.reason for item in found), listing(found)


def test_archives_that_are_none(tmp_path):
    with pytest.raises(AvscError, match="no such file"):
        check(tmp_path / "absent.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(AvscError, match="not a zip"):
        check(tmp_path / "text.zip")
    whole = pack(tmp_path / "p.zip", [system()], PEOPLE, files=FILES).read_bytes()
    broken = bytearray(whole)
    broken[200] ^= 255
    (tmp_path / "broken.zip").write_bytes(bytes(broken))
    with pytest.raises(AvscError, match="not a zip that can be read"):
        check(tmp_path / "broken.zip", FILES)
    (tmp_path / "empty").mkdir()
    assert "has no system" in listing(check(tmp_path / "empty"))
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a/task1/b/c", "")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/task1/b/c", "")
    assert "more than once" in listing(check(tmp_path / "twice.zip"))


def test_description_by_architecture():
    hybrid = describe(Architecture())
    assert hybrid.modality_combination == "hybrid fusion"
    assert hybrid.acoustic_features == "log-mel energies"
    sound = describe(Architecture(video="", channels="stereo"))
    assert (sound.modality_combination, sound.input_channels, sound.visual_embeddings) == ("audio", "binaural", None)
    pictures = describe(Architecture(audio=""))
    assert (pictures.modality_combination, pictures.input_channels, pictures.acoustic_features) == ("video", None, None)
    late = describe(Architecture(fusion=""))
    assert (late.modality_combination, late.decision_making) == ("late fusion", "average")
    assert isinstance(hybrid, Description)
    counts = [describe(Architecture(), subsystems=count).ensemble_method_subsystem_count for count in (1, 2, 3)]
    assert counts == [None, 2, 3]
    alone = Architecture(video="")
    decisions = [describe(alone, subsystems=count).decision_making for count in (1, 2)]
    assert decisions == ["maximum likelihood", "average"]


@pytest.mark.parametrize("features", get_args(get_type_hints(Architecture)["features"]))
def test_every_front_end_has_a_word_of_the_challenge(features):
    assert describe(Architecture(features=features)).acoustic_features
