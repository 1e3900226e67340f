"""The authors of a challenge submission, from a TOML file or asked for at a terminal."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

from avsc_e2e.errors import AvscError

TEMPLATE = """\
# The authors of a submission, in order. Repeat both tables for each further author.
# The labels of the systems consist of the first author's lastname and abbreviation.
[[author]]
lastname = "Doe"
firstname = "Jane"
email = "jane.doe@example.org"
corresponding = true                 # exactly one author; the first one if none says so

[author.affiliation]
institute = "Example Institute"
abbreviation = "EXA"                 # this and the following may be left out
department = "Department of Audio"
location = "Exampleton, Finland"
"""
"""The output of `avsc submission people`."""

TEMPLATE_HINT = "`avsc submission people > people.toml` writes a template"
TYPES = {"corresponding": "true or false, without quotes", "affiliation": "a table [author.affiliation]"}


@dataclass(frozen=True)
class Affiliation:
    """Affiliation of an author; empty fields become !!null."""

    institute: str
    abbreviation: str = ""
    department: str = ""
    location: str = ""


@dataclass(frozen=True)
class Person:
    """An author."""

    lastname: str
    firstname: str
    email: str
    affiliation: Affiliation
    corresponding: bool = False


def read_people(path: str | Path) -> tuple[Person, ...]:
    """The authors in a TOML file: a table [[author]] each with lastname, firstname, email and [author.affiliation]
    with institute, abbreviation, department, location. The first one is the corresponding author unless another says
    `corresponding = true`. Raises AvscError for a missing, unknown or mistyped field."""
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AvscError(f"{path}: cannot be read ({error.strerror}); {TEMPLATE_HINT}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AvscError(f"{path}: not TOML: {error}; {TEMPLATE_HINT}") from None
    authors = given.get("author")
    if not isinstance(authors, list) or not authors or set(given) != {"author"}:
        raise AvscError(f"{path}: it must hold a table [[author]] for each author, and nothing else; {TEMPLATE_HINT}")
    people = []
    for number, author in enumerate(authors, 1):
        where = f"{path}, author {number}"
        values = _fields(author, Person, where)
        values["affiliation"] = Affiliation(**_fields(values["affiliation"], Affiliation, f"{where}, affiliation"))
        people.append(Person(**values))
    return with_correspondent(people)


def ask_people(ask: Callable[[str], str]) -> tuple[Person, ...]:
    """The authors by questions: `ask` shows a question and returns the answer. An empty last name ends the list."""
    people: list[Person] = []
    while True:
        lastname = ask(f"Last name of author {len(people) + 1}{' (empty: no more)' if people else ''}: ").strip()
        if not lastname and people:
            return with_correspondent(people)
        if not lastname:
            raise AvscError("submission: no author given; at least one is needed")
        first, email = ask("First name: ").strip(), ask("E-mail: ").strip()
        affiliation = Affiliation(
            institute=ask("Institute: ").strip(),
            abbreviation=ask("Its abbreviation, such as TAU: ").strip(),
            department=ask("Department: ").strip(),
            location=ask("City and country: ").strip(),
        )
        people.append(Person(lastname, first, email, affiliation))


def with_correspondent(people: Sequence[Person]) -> tuple[Person, ...]:
    """The people, with the first as corresponding author unless another one is."""
    if any(person.corresponding for person in people):
        return tuple(people)
    return (replace(people[0], corresponding=True), *people[1:])


def team_of(people: Sequence[Person]) -> str:
    """`Lastname_Institute` of the labels: the first author's last name and institute in plain letters."""
    if not people:
        raise AvscError("submission: no author given; at least one is needed")
    affiliation = people[0].affiliation
    parts = [_plain(people[0].lastname), _plain(affiliation.abbreviation or affiliation.institute)]
    if not all(parts):
        raise AvscError("submission: the first author needs a last name and an institute; labels are made of them")
    return "_".join(parts)


def _plain(text: str) -> str:
    """Letters and digits without accents: a label's parts hold neither underscore nor dot."""
    decomposed = unicodedata.normalize("NFKD", text.replace("ß", "ss").replace("ø", "o").replace("Ø", "O"))
    return re.sub(r"[^A-Za-z0-9-]", "", decomposed).strip("-")


def _fields(given: object, kind: type, where: str) -> dict:
    """The fields of a table for a dataclass, or AvscError."""
    if not isinstance(given, Mapping):
        raise AvscError(f"{where}: it must be a table with {', '.join(field.name for field in fields(kind))}")
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise AvscError(f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(known)}")
    for name, field in known.items():
        if name not in given and field.default is not MISSING:
            continue
        if name not in given:
            raise AvscError(f"{where}: {name} is missing")
        if not isinstance(given[name], {"corresponding": bool, "affiliation": Mapping}.get(name, str)):
            raise AvscError(f"{where}: {name} is {given[name]!r}; give {TYPES.get(name, 'a text in quotes')}")
    return dict(given)
