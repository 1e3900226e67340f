"""What a challenge submission says of its systems and its people, in the fields of the meta.yaml."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avsc_e2e.errors import AvscError

if TYPE_CHECKING:
    from avsc_e2e.models.architecture import Architecture
    from avsc_e2e.outputs.metrics import Scores
    from avsc_e2e.outputs.output import SystemOutput

MOST_SYSTEMS = 4
"""Systems that one team may hand in."""


@dataclass(frozen=True)
class Affiliation:
    """Where an author works; what is empty becomes !!null."""

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


@dataclass(frozen=True)
class Description:
    """How a system works, in the challenge's words; what is None becomes !!null."""

    input_channels: str | None = None
    """mono, binaural, left, right, mixed."""
    input_sampling_rate: str | None = None
    """48kHz."""
    acoustic_features: str | None = None
    audio_embeddings: str | None = None
    visual_embeddings: str | None = None
    data_augmentation: str | None = None
    machine_learning_method: str | None = None
    ensemble_method_subsystem_count: int | None = None
    modality_combination: str | None = None
    """audio, video, early fusion, late fusion, hybrid fusion."""
    decision_making: str | None = None
    external_data_usage: str | None = None


@dataclass(frozen=True)
class Complexity:
    """Parameters of a system, those of frozen parts included."""

    total_parameters: int | None = None
    total_parameters_audio: int | None = None
    total_parameters_visual: int | None = None


@dataclass(frozen=True)
class ExternalDataset:
    """Data beyond the challenge's own that a system was trained on, before or in the challenge."""

    name: str
    url: str | None = None
    total_audio_length: int | None = None
    """Minutes."""


@dataclass(frozen=True, eq=False)
class System:
    """One entry of a submission."""

    name: str
    abbreviation: str
    """Ten characters at most."""
    output: SystemOutput
    """Of the evaluation set, one row a file."""
    scores: Scores
    """On the development set's test part, one-second segments."""
    complexity: Complexity
    description: Description = Description()
    external_datasets: tuple[ExternalDataset, ...] = ()
    source_code: str | None = None
    """Address."""


def describe(
    architecture: Architecture, augmentation: Sequence[str] = (), pretrained: Sequence[str] = (), subsystems: int = 1
) -> Description:
    """The description of a system by its architecture.

    `augmentation` names the transforms that training used, `pretrained` what the trunks had learnt from before.
    """
    channels = {
        "mono": "mono",
        "stereo": "binaural",
        "mid_side": "mid, side",
        "left_right_difference": "left, right, difference",
    }
    features = {
        "log_mel": "log-mel energies",
        "bark": "log Bark energies",
        "gammatone": "gammatones",
        "constant_q": "CQT",
        "wavelet": "scalogram",
    }
    both = bool(architecture.audio and architecture.video)
    fused = bool(architecture.fusion) and both
    learned = f" ({', '.join(pretrained)})" if pretrained else ""
    trunks = [trunk for trunk in (architecture.audio, architecture.video) if trunk]
    combination = (
        "hybrid fusion" if fused and len(architecture.heads) > 1 else "early fusion" if fused else "late fusion"
    )
    return Description(
        input_channels=channels.get(architecture.channels, architecture.channels) if architecture.audio else None,
        input_sampling_rate=f"{architecture.sample_rate / 1000:g}kHz" if architecture.audio else None,
        acoustic_features=features[architecture.features] if architecture.audio else None,
        audio_embeddings=architecture.audio or None,
        visual_embeddings=f"{architecture.video}{learned}" if architecture.video else None,
        data_augmentation=", ".join(augmentation) or None,
        machine_learning_method=", ".join(trunks),
        ensemble_method_subsystem_count=None if subsystems < 2 else subsystems,
        modality_combination=combination if both else "audio" if architecture.audio else "video",
        decision_making="average" if len(architecture.heads) > 1 or subsystems > 1 else "maximum likelihood",
        external_data_usage="pre-trained model" if pretrained else None,
    )


def read_people(path: str | Path) -> tuple[Person, ...]:
    """The authors in a TOML file: a table [[author]] each with lastname, firstname, email and [author.affiliation]
    with institute, abbreviation, department, location. The first one is the corresponding author unless another says
    `corresponding = true`. Raises AvscError for a missing, unknown or mistyped field."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        raise AvscError(f"{path}: reading TOML needs Python 3.11 or newer; answer the questions instead") from None
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AvscError(f"{path}: cannot be read ({error.strerror}); give a TOML file with [[author]] tables") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AvscError(f"{path}: not TOML: {error}") from None
    authors = given.get("author")
    if not isinstance(authors, list) or not authors or set(given) != {"author"}:
        raise AvscError(f"{path}: it must hold a table [[author]] for each author, and nothing else")
    people = []
    for number, author in enumerate(authors, 1):
        where = f"{path}, author {number}"
        values = _fields(author, Person, where)
        values["affiliation"] = Affiliation(**_fields(values["affiliation"], Affiliation, f"{where}, affiliation"))
        people.append(Person(**values))
    return with_correspondent(people)


def ask_people(ask: Callable[[str], str]) -> tuple[Person, ...]:
    """The authors as a person tells them; `ask` shows a question and returns the answer. An empty last name ends."""
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
    """The people, the first as corresponding author unless one is it already."""
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
            raise AvscError(f"{where}: {name} is {given[name]!r}, which is of the wrong type")
    return dict(given)
