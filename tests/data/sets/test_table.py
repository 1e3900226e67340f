"""A table of files in place of class folders."""

import numpy as np
import pytest
import soundfile

from avsc_e2e.data.check.check import check
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.errors import AvscError


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a", "b", "c", "d", "e")):
        noise = np.random.default_rng(number).normal(0, 0.1, 4000)
        soundfile.write(tmp_path / f"{name}.wav", noise, 8000)
    return tmp_path


def table(folder, text):
    path = folder / "files.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_columns_in_any_order_with_groups_and_splits(folder, mark):
    (folder / "deep").mkdir()
    (folder / "e.wav").rename(folder / "deep" / "e.wav")
    text = f"""split,label,file,group
train,street,a.wav,one
train,park,{folder / "b.wav"},two
val,street,c.wav,three
test,park,d.wav,four
train,park,deep/e.wav,two
"""
    corpus = read_corpus(table(folder, "\ufeff" + text.replace(",", mark).replace("\n", "\r\n")))
    assert corpus.classes == ("park", "street")
    assert [(row.file, row.scene, row.location) for row in corpus.train] == [
        ("a", "street", "one"),
        (str(folder / "b"), "park", "two"),
        ("deep/e", "park", "two"),
    ]
    assert [row.file for row in corpus.validation] == ["c"]
    assert [row.file for row in corpus.test] == ["d"]
    assert corpus.train[2].audio == str(folder / "deep" / "e.wav")
    assert corpus.train[0].video == ""
    assert corpus.train[0].duration == 0.5


def test_a_store_of_a_table_gives_the_same_rows(folder):
    lines = "file,label,group\n" + "".join(f"{name}.wav,{name in 'ab'},{name}\n" for name in "abcde")
    path = table(folder, lines)
    prepared = prepare(path, folder / "store", Options(16, 1.0, 90), workers=1)
    assert (prepared.clips, prepared.bad) == (5, ())
    rows = read_corpus(path, validation=0, test=0)
    assert read_corpus(folder / "store", validation=0, test=0) == rows
    path.unlink()
    assert read_corpus(folder / "store", validation=0, test=0) == rows


def test_without_groups_names_tell_them(folder):
    rows = read_corpus(table(folder, "file,label\na.wav,x\nb.wav,x\nc.wav,y\n"), validation=0, test=0).train
    assert [row.location for row in rows] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: give the columns file and label"),
        ("path,label\na.wav,x\n", r"line 1: give the columns file and label .*not 'path,label': file is missing"),
        ("file,label,label\na.wav,x,x\n", "line 1: column label occurs twice"),
        ("file,label\na.wav,x,y\n", "line 2: 3 columns, 2 expected"),
        ("file,label\n", "lists no recording"),
        ("file,label\na.wav,\n", "line 2: no file or no label"),
        ("file,label\na.wav,x\nabsent.wav,y\n", r"line 3: absent\.wav is absent: paths are relative to "),
        ("file,label\nfiles.csv,x\n", r"line 2: files\.csv is neither video nor audio"),
        ("file,label\na.wav,x\n./a.wav,x\na.wav,y\n", "line 4: a.wav has the same name as line 2"),
        ("file,label,split\na.wav,x,train\nb.wav,y,\n", "line 3: split ''"),
        ("file,label,split\na.wav,x,test\n", "lists no recording of the split train"),
        ("file,label\na.wav,x\x07\n", "line 2: has characters that are not printable"),
    ],
)
def test_faults_name_the_line(folder, text, reason):
    with pytest.raises(AvscError, match=reason) as error:
        read_corpus(table(folder, text))
    assert "\n" not in str(error.value)
    assert "files.csv" in str(error.value)


def test_check_lists_every_fault_and_unknown_columns(folder):
    result = check(table(folder, "file,label,groups\nabsent.wav,x,1\na.wav,x,1\nb.wav,,1\n"))
    faults = [f"{problem.path}: {problem.reason}" for problem in result.problems if problem.kind == "list"]
    assert [fault.partition("files.csv: ")[2].partition(": paths")[0] for fault in faults] == [
        "line 2: absent.wav is absent",
        "line 4: no file or no label: give both",
    ]
    assert any("column 'groups' is passed over" in note for note in result.notes)
