"""Sources that several classes share are found in names as people give them, and nowhere else."""

import pytest

from avsc_e2e.clip import Row
from avsc_e2e.learner.crossing import crossing


def rows(pattern: str, classes=("one", "two", "three"), **numbers) -> list[Row]:
    """A source for each class and number; `{scene}` and `{n}` in the pattern are replaced."""
    return [
        Row(f"{scene}/{n}", location=pattern.format(scene=scene, n=n), scene=scene)
        for scene in classes
        for n in range(numbers.get("first", 0), numbers.get("count", 6))
    ]


def test_a_speaker_of_all_classes_is_one_source():
    found = crossing(rows("speaker{n:02}_{scene}"))
    assert found["speaker03_one"] == found["speaker03_three"] == "speaker03"
    assert len(set(found.values())) == 6


def test_the_part_with_the_most_values_counts():
    """An actor among 24, not the one of four sentences: the names of RAVDESS and of CREMA-D."""
    emotions = {"calm": "02", "happy": "03"}
    ravdess = [
        Row("", location=f"{scene}/03-01-{code}-01-{sentence:02}-01-{actor:02}", scene=scene)
        for scene, code in emotions.items()
        for sentence in range(1, 5)
        for actor in range(1, 25)
    ]
    found = crossing(ravdess)
    assert found["calm/03-01-02-01-02-01-17"] == found["happy/03-01-03-01-04-01-17"] == "17"
    assert len(set(found.values())) == 24
    crema = [
        Row("", location=f"{actor}_{sentence}_{code}_XX", scene=scene)
        for scene, code in {"anger": "ANG", "fear": "FEA"}.items()
        for sentence in ("DFA", "IEO")
        for actor in range(1001, 1011)
    ]
    assert crossing(crema)["1004_DFA_ANG_XX"] == crossing(crema)["1004_IEO_FEA_XX"] == "1004"


def test_names_may_be_in_folders_below_the_class():
    found = crossing(rows("{scene}/cam{n}/clip"))
    assert found["one/cam2/clip"] == found["two/cam2/clip"] == "cam2"


@pytest.mark.parametrize(
    "given",
    [
        rows("holiday {scene}"),
        rows("speaker{n}_{scene}", count=3),  # too few values for a source: takes, or sentences
        rows("speaker{n}_{scene}", classes=("one",)),
        [*rows("speaker{n}_{scene}"), Row("x", location="something else entirely", scene="one")],
        [row._replace(location=f"{scene}{row.location}") for scene in "abc" for row in rows("p{n}", classes=(scene,))],
    ],
)
def test_other_names_tell_of_none(given):
    assert crossing(given) == {}
