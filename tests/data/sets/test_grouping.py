"""What the names of strangers' files tell of their sources."""

import numpy as np
import pytest
import soundfile

from avsc_e2e.clip import Row
from avsc_e2e.data.sets.folder import read_folder
from avsc_e2e.data.sets.grouping import group_rows, guess, read_groups
from avsc_e2e.errors import AvscError


def rows(*names):
    return [Row(name, scene=name.split("/")[0]) for name in names]


def sources(*names):
    return [row.location for row in group_rows({"": rows(*names)})[""]]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("v_Archery_g12_c01", "v_Archery_g12"), ("trip part 2", "trip"), ("trip.clip03", "trip"),
        ("speaker03_take2", "speaker03"), ("beach", "beach"), ("x264", "x264"),
        # a second copy of a file, or what a phone made of it
        ("IMG_0001 (1)", "IMG_0001"), ("IMG_E0001", "IMG_0001"), ("x - Copy", "x"), ("IMG_0001_part2", "IMG_0001"),
        # moments and identifiers are the same wherever they occur
        ("VID_20210506_123456", "VID_20210506_123456"), ("20210506_123456_2", "20210506_123456"),
        ("PXL_20210506_123456789.TS", "PXL_20210506_123456789"), ("VID-20210506-WA0012", "VID-20210506-WA0012"),
        ("WhatsApp Video 2021-05-06 at 14.33.12 (1)", "WhatsApp Video 2021-05-06 at 14.33.12"),
        ("dQw4w9WgXcQ", "dQw4w9WgXcQ"), ("dQw4w9WgXcQ_000010_000020", "dQw4w9WgXcQ"), ("-0Abc12_x-4_30", "-0Abc12_x-4"),
        ("a6b0f4f0-1c0b-4a6f-9c39-0b2e0f7a1f11_3", "a6b0f4f0-1c0b-4a6f-9c39-0b2e0f7a1f11"),
        ("6f1ed002ab5595859014ebf0951522d9", "6f1ed002ab5595859014ebf0951522d9"),
        # chapters of a GoPro
        ("GX010123", "GX0123"), ("GX020123", "GX0123"), ("GP010123", "GOPR0123"),
        # parts of files that are only counted, and words for parts
        ("video1_clip2", "video1"), ("0001_part2", "0001"), ("spk03_utt12", "spk03"), ("holiday-Scene-012", "holiday"),
        # data sets
        ("YdQw4w9WgXcQ_0.000_10.000", "YdQw4w9WgXcQ"), ("1-100032-B-0", "100032"), ("100032-3-0-12", "100032"),
        ("2023-05-06-001", "2023-05-06-001"), ("004ae714_nohash_1", "004ae714_nohash"),
        # cameras and people who count
        *((name, name) for name in ("IMG_0001", "MVI_1234", "DSC01234", "DJI_0007", "GOPR0123", "P1010001", "C0001",
                                    "007", "clip_0001", "clip (3)", "video12", "2021-05-06", "2021-05-06_001")),
    ],
)  # fmt: skip
def test_a_name_alone(name, source):
    assert guess(name).source == source


def test_files_of_phones_are_sources():
    names = [f"a/IMG_{n:04d}" for n in range(1, 31)] + [f"a/DJI_{n:04d}" for n in range(3)]
    names += [f"a/VID_2021050{n}_120000" for n in range(1, 4)]
    assert len(set(sources(*names))) == 36


@pytest.mark.parametrize(
    "form", ["clip_{:04d}", "archery_{:03d}", "{:03d}", "street ({})", "video{}", "rec-{}", "MOV{:05d}"]
)
def test_counted_files_of_a_class_are_sources(form):
    names = [f"Archery/{form.format(n)}" for n in range(20)] + [f"other/{form.format(n)}" for n in range(20)]
    assert sources(*names) == names  # and those of two classes are not one


def test_numbers_are_parts_where_names_tell_sources():
    names = [
        f"{scene}/{source}_{part:03d}" for scene in "ab" for source in ("beach", "town", "wood") for part in range(5)
    ]
    assert set(sources(*names)) == {"beach", "town", "wood"}
    assert set(sources(*(f"a/speaker{n:02d}_{part}" for n in range(9) for part in range(9)))) == {
        f"speaker{n:02d}" for n in range(9)
    }
    uneven = [f"a/long_{n}" for n in range(25)] + [f"a/{x}_{n}" for x in "xyz" for n in range(5)]
    assert set(sources(*uneven)) == {"long", "x", "y", "z"}


def test_a_guess_that_would_merge_most_of_a_class_is_not_made(caplog):
    names = [f"a/walk_{n:03d}" for n in range(30)] + ["a/x", "a/y", "a/z"]
    assert len(set(sources(*names))) == 33
    assert "do not tell sources apart" in caplog.text
    assert "--data.group" in caplog.text
    assert "--data.groups" in caplog.text
    caplog.clear()
    sources(*names, *(name.replace("a/", "c/") for name in names), *(name.replace("a/", "d/") for name in names))
    assert "the names of class 'a' and 2 more, but" in caplog.text
    # what another class shows to be sources stays together over classes
    shown = [f"b/{source}_{n}" for source in ("walk", "run", "swim") for n in range(3)]
    assert len(set(sources(*names, *shown)) & {"walk", "run", "swim"}) == 3


def test_one_marked_source_of_a_class_is_told(tmp_path):
    for name in ("a/beach_clip1", "a/beach_clip2", "b/x", "b/y", "b/z"):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.random.default_rng(len(list(tmp_path.rglob("*")))).uniform(-0.1, 0.1, 9000), 8000)
    with pytest.raises(AvscError, match=r"class 'a' has one .*'beach'.*data\.group .*data\.groups"):
        read_folder(tmp_path)
    assert len(read_folder(tmp_path, group="(.+)", validation=0).train) == 3


def test_a_rule_names_sources_within_their_folders():
    found = group_rows({"": rows("a/one/cam0_1", "a/two/cam0_1", "b/one/cam0_9", "a/cam0_3")}, group=r"(CAM\d)_\d")
    assert [row.location for row in found[""]] == ["one/cam0", "two/cam0", "one/cam0", "cam0"]


def test_a_list_of_groups(tmp_path):
    listed = tmp_path / "groups.csv"
    names = ("a/x_1", "a/y", "b/z")
    for text in (
        "file,group\na/x_1,one\na/y.mp4,two\nz,one\n",
        '\ufeffgroup;comment;file\r\none;;"a/x_1"\r\ntwo;yes;a/y\r\none;;b/z.mp4\r\n',
    ):
        listed.write_bytes(text.encode())
        found = [row._replace(video=f"videos/{row.file}.mp4") for row in rows(*names)]
        assert [row.location for row in group_rows({"": found}, groups=listed)[""]] == ["one", "two", "one"]
    for text, match in (
        ("", "line 1: give the columns"),
        ("a,b\n", "line 1: give the columns file and group"),
        ("file,group\na/x_1\n", "line 2: 1 columns, 2 expected"),
        ("file,group\na/x_1,\n", "line 2: no file or no group"),
        ("file,group\nx,1\nx,2\n", "line 3: x is in group '1' already"),
    ):
        listed.write_text(text)
        with pytest.raises(AvscError, match=match):
            read_groups(listed)
    listed.write_text("file,group\na/x_1,one\n")
    with pytest.raises(AvscError, match="a/y is not listed: every recording needs a group"):
        group_rows({"": rows(*names)}, groups=listed)
    with pytest.raises(AvscError, match="cannot be read"):
        read_groups(tmp_path / "nowhere.csv")
    with pytest.raises(AvscError, match="exclude each other"):
        group_rows({"": rows(*names)}, group="(.+)", groups=listed)


def test_parts_far_from_their_share_are_told(tmp_path, caplog):
    """Three sources of 30, 3 and 3 files by a rule of the user's."""
    draw = np.random.default_rng(0)
    for source, count in (("one", 30), ("two", 3), ("three", 3)):
        for number in range(count):
            path = tmp_path / "a" / f"{source}_{number}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, draw.uniform(-0.1, 0.1, 4000 + 1000 * len(list(tmp_path.rglob("*")))), 8000)
    for seed in range(6):
        caplog.clear()
        corpus = read_folder(tmp_path, group=r"(.+)_\d+", validation=0, seed=seed)
        assert (f"{len(corpus.test)} of 36 recordings are in the test set" in caplog.text) == (
            abs(len(corpus.test) - 7.2) > 3.6
        )
        assert ("the largest, 'one', has 30" in caplog.text) == (abs(len(corpus.test) - 7.2) > 3.6)
