"""Texts and command lines that hypothesis draws, the same each time."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from material import CALIBRATION

ODD = ("", " ", "\t", "'", '"', "\u202e", "e\u0301", "\ufeff", "\uff11", "\0", "\r", "a\nb", "x" * 300, "9" * 400)
KNOWN = (
    "park", "tram", "a/x.wav", "0.5", "-1", "nan", "1e999", "inf", "0x10", "../x", "/etc/passwd",
    "http://127.0.0.1:9/x", "<script>avsc</script>", "=cmd()", "--", "-", "None", "null", "true", "{{7*7}}", "%s",
    ";", "|", ",", ".", "..", "~",
)  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(KNOWN), st.sampled_from(ODD), st.text(max_size=12), st.integers().map(str), st.floats().map(str)
)
MARKS = st.sampled_from(["\t", ",", ";", "\t", "\t", "|"])
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n", "\u2028"])


@st.composite
def tables(draw, *headers: str):
    """A table with one of some headers, or nearly, and cells of all kinds."""
    header = draw(st.sampled_from(headers)).split()
    if draw(st.integers(0, 3)) == 0:
        header = draw(st.permutations([*header, draw(WORDS)]))
    mark, end = draw(MARKS), draw(ENDS)
    fitting = st.lists(WORDS, min_size=len(header), max_size=len(header))
    rows = draw(st.lists(st.one_of(fitting, fitting, st.lists(WORDS, max_size=6)), max_size=6))
    text = end.join(mark.join(cells) for cells in [header, *rows])
    return draw(st.sampled_from(["", "\ufeff"])) + text + draw(st.sampled_from(["", end]))


@st.composite
def outputs(draw):
    """A table of probabilities of two classes whose names, and those of whose files, are of all kinds."""
    classes = draw(st.lists(WORDS, min_size=2, max_size=3, unique=True))
    files = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    share = str(1 / len(classes))
    lines = [["filename", "scene_label", *classes], *([file, draw(st.sampled_from(classes)), *[share] * len(classes)]
                                                      for file in files)]  # fmt: skip
    return "\n".join("\t".join(cells) for cells in lines) + "\n"


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4))


@st.composite
def objects(draw, like: dict):
    """JSON that is nearly an object: some values of other kinds, some keys more or fewer."""
    found = {}
    for key, value in like.items():
        choice = draw(st.integers(0, 5))
        if choice == 1:
            found[key] = draw(VALUES)
        elif choice:
            found[key] = draw(objects(value)) if isinstance(value, dict) and draw(st.booleans()) else value
    if draw(st.integers(0, 4)) == 0:
        found[draw(WORDS)] = draw(VALUES)
    return found


STAGES = ("zhang_ioa/audio", "own_videos/hybrid", "flagship/fused", "zhang_ioa/x", "nowhere/x", "x.py:y", "", "-")
FIELDS = (
    "epochs", "batch-size", "optim.lr", "model.audio", "model.size", "model.window", "data.validation", "seed",
    "data.window", "data.test", "model.classes", "augment.mixup.strength", "data.group", "data.groups", "init",
    "data.on-bad", "precision", "model.hop", "heads.audio", "x", "model", "averaging.decay", "machine.devices",
    "data.balance", "smoothing", "patience", "model.decision", "test-time.views", "data.fold", "resume",
    "optim.layer-decay", "data.workers", "augment.crop.scale", "model.fusion", "model.channels", "keep",
    "pretrained",
)  # fmt: skip
NUMBERS = st.sampled_from(["0", "1", "-1", "0.5", "1e9", "auto", "raise", "nan", "True"])
OPTIONS = """--reference nowhere.csv|--folds 0|--method x|--format csv|--hop -1|--json-to|--fast|--rate 0|--group (
--batch-size 0|--list-to|--test 2|--validation nan|--out|--part x|--save|--workers -1""".replace("\n", "|").split("|")
VERBS = ("score", "calibrate", "fuse", "compare", "submission check", "submission pack", "data check", "data prepare",
         "models", "predict", "average", "export", "scoer", "data", "")  # fmt: skip


def _typed(text: str) -> bool:
    """Whether a shell can pass a text on."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def commands() -> st.SearchStrategy:
    """Command lines: stages with fields and values of all kinds, verbs with files that are not there, mistyped words.
    None of them trains, since the data set that they name is not there."""
    value = st.one_of(WORDS, NUMBERS, NUMBERS).filter(_typed)
    flags = st.lists(st.tuples(st.sampled_from(FIELDS).map("--{}".format), value), max_size=3)
    staged = st.tuples(st.sampled_from(["show", "train", "train", "evaluate", "teach"]), st.sampled_from(STAGES), flags)
    other = st.tuples(st.sampled_from(VERBS), st.lists(st.one_of(value, st.just("nowhere.csv")), max_size=3),
                      st.lists(st.sampled_from(OPTIONS), max_size=2))  # fmt: skip
    return st.one_of(
        staged.map(
            lambda line: [*line[:2], *(part for pair in line[2] for part in pair), "--data.root", "nowhere/at/all"]
        ),
        other.map(lambda line: [*line[0].split(), *line[1], *(part for text in line[2] for part in text.split())]),
    )


META = {"submission": {"label": "A_B_task1b_1", "name": "x", "authors": [], "abbreviation": "x"},
        "system": {"description": {}, "complexity": {}}, "results": {}}  # fmt: skip
STORE = {"format": 1, "layout": "folder", "root": "/x", "shards": [["a/x"]], "copies": [],
         "options": {"short_side": 64, "rate": 5.0, "quality": 90}}  # fmt: skip
AUTHOR = st.lists(st.tuples(st.sampled_from(["lastname", "firstname", "email", "x"]), WORDS), max_size=5)
LISTING = "filename_audio filename_video scene_label identifier"
TEXTS: dict[str, tuple[str, st.SearchStrategy]] = {
    "output": ("output.csv", tables("filename scene_label park tram", "filename start park tram", "file a b")),
    "scored": ("output.csv", outputs()),
    "reference": ("reference.csv", tables("filename scene_label", "filename_audio filename_video scene_label")),
    "listing": ("meta.csv", tables(LISTING, "filename")),
    "tau": ("meta.csv", tables(LISTING)),
    "groups": ("groups.csv", tables("file group", "group note file")),
    "yaml": ("a.meta.yaml", objects(META).map(json.dumps)),
    "people": ("people.toml", AUTHOR.map(lambda pairs: "[[author]]\n" + "".join(
        f"{name} = {json.dumps(text)}\n" for name, text in pairs))),
    "calibration": ("calibration.json", objects(CALIBRATION).map(json.dumps)),
    "store": ("store.json", objects(STORE).map(json.dumps)),
    "names": ("names.json", st.lists(WORDS, min_size=1, max_size=5).map(json.dumps)),
    "flags": ("flags.json", commands().map(json.dumps)),
}  # fmt: skip
"""Reader -> the name of its file, and what may be in it."""


def draw(folder: Path, reader: str, count: int) -> list[Path]:
    """Files with `count` texts for a reader."""
    name, strategy = TEXTS[reader]
    found: list[Path] = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def take(text: str) -> None:
        path = folder / reader / str(len(found)) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        found.append(path)

    take()
    return found[:count]
