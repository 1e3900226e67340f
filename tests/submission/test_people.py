"""The authors of a submission: their file, its template, questions, and the labels made of their names."""

import pytest

from avsc_e2e.errors import AvscError
from avsc_e2e.submission.people import TEMPLATE, Affiliation, Person, ask_people, read_people, team_of

PEOPLE = (
    Person(
        "Häme", "Aino", "aino@tau.fi", Affiliation("Tampere University", "TAU", "Computing", "Tampere, Finland"), True
    ),
    Person("Doe", "Jo", "jo@tau.fi", Affiliation("Tampere University")),
)


def test_template(tmp_path):
    (tmp_path / "people.toml").write_text(TEMPLATE)
    (author,) = read_people(tmp_path / "people.toml")
    assert team_of([author]) == "Doe_EXA"
    assert author.corresponding
    assert author.affiliation == Affiliation("Example Institute", "EXA", "Department of Audio", "Exampleton, Finland")


def test_types_of_fields(tmp_path):
    for old, new, reason in (
        ("corresponding = true", 'corresponding = "yes"', "corresponding is 'yes'; give true or false, without quotes"),
        ("[author.affiliation]", "[[author.affiliation]]", "give a table"),
    ):
        (tmp_path / "bad.toml").write_text(TEMPLATE.replace(old, new))
        with pytest.raises(AvscError, match=reason):
            read_people(tmp_path / "bad.toml")


def test_people_from_a_file(tmp_path):
    path = tmp_path / "people.toml"
    path.write_text(
        '[[author]]\nlastname = "Häme"\nfirstname = "Aino"\nemail = "aino@tau.fi"\n'
        'affiliation = {institute = "Tampere University", abbreviation = "TAU", department = "Computing",'
        ' location = "Tampere, Finland"}\n'
        '[[author]]\nlastname = "Doe"\nfirstname = "Jo"\nemail = "jo@tau.fi"\n'
        'affiliation = {institute = "Tampere University"}\n'
    )
    assert read_people(path) == PEOPLE
    for old, new, reason in (
        ("lastname", "surname", "unknown field 'surname'"),
        ('firstname = "Jo"\n', "", "author 2: firstname is missing"),
        ('"jo@tau.fi"', "5", "email is 5; give a text in quotes"),
        ("institute", "institution", "unknown field 'institution'"),
        ("[[author]]", "[[person]]", r"\[\[author\]\] .*`avsc submission people > people.toml` writes a template"),
        ("=", "", "not TOML"),
    ):
        text = path.read_text()
        (tmp_path / "bad.toml").write_text(text.replace(old, new))
        with pytest.raises(AvscError, match=reason):
            read_people(tmp_path / "bad.toml")
    with pytest.raises(AvscError, match="cannot be read"):
        read_people(tmp_path / "absent.toml")


def test_people_by_questions():
    answers = ["Häme", "Aino", "aino@tau.fi", "Tampere University", "TAU", "Computing", "Tampere, Finland"]
    answers += ["Doe", "Jo", "jo@tau.fi", "Tampere University", "", "", "", ""]
    asked = []

    def ask(question):
        asked.append(question)
        return answers[len(asked) - 1]

    assert ask_people(ask) == PEOPLE
    assert len(asked) == len(answers)
    with pytest.raises(AvscError, match="no author"):
        ask_people(lambda _: "")


def test_labels_hold_plain_letters():
    person = Person("Ångström-Nuñez Jr.", "A", "a@b.se", Affiliation("KTH_Stockholm"))
    assert team_of([person]) == "Angstrom-NunezJr_KTHStockholm"
    with pytest.raises(AvscError, match="last name and an institute"):
        team_of([Person("李", "A", "a@b.cn", Affiliation("清华"))])
