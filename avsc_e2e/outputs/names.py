"""Information in the name of a recording: path, base name, city and location."""

from __future__ import annotations

import re

_TAU_NAME = re.compile(r"(?P<scene>[a-z_]+)-(?P<city>[a-z_]+)-(?P<location>\d+)-(?P<segment>\d+)(-\w+)*")


_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


def location_of(file: str) -> str:
    """The location of a recording: `city-location` of `scene-city-location-segment`; other names are returned
    unchanged."""
    match = _TAU_NAME.fullmatch(base_of(file))
    return f"{match['city']}-{match['location']}" if match else file


def city_of(file: str) -> str:
    """The city of a recording by its `scene-city-location-segment` name; other names are returned unchanged."""
    match = _TAU_NAME.fullmatch(base_of(file))
    return match["city"] if match else file


def path_of(file: str) -> str:
    return _EXTENSION.sub("", file.replace("\\", "/"))


def base_of(file: str) -> str:
    return path_of(file).rsplit("/", 1)[-1]
