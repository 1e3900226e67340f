"""Jinja2 with the templates and the stylesheet of this package: every value is escaped unless it is Markup."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from avsc_e2e import __version__
from avsc_e2e.durable import replacing
from avsc_e2e.report import glossary, theme
from avsc_e2e.report.words import count, number, percent, signed, span


@cache
def environment() -> Environment:
    found = Environment(
        loader=PackageLoader("avsc_e2e.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": percent, "signed": signed, "number": number, "span": span, "anchor": glossary.anchor}
    found.globals |= {"count": count}
    return found


def stylesheet() -> str:
    """The stylesheet of all pages, light and dark."""
    found = environment()
    palette = found.get_template("palette.css").render(
        light=theme.variables(theme.LIGHT), dark=theme.variables(theme.DARK), shades=theme.SHADES, series=theme.SERIES
    )
    return palette + found.get_template("style.css").render()


def render(template: str, **values: object) -> str:
    """A whole page as one HTML text that needs no other file. The template extends base.html; the first occurrence of
    each glossary term is linked."""
    body = environment().get_template(template).render(**values)
    body, terms = glossary.linked(body)
    return (
        environment()
        .get_template("base.html")
        .render(
            body=Markup(body),
            terms=terms,
            style=Markup(stylesheet()),
            made=date.today().isoformat(),
            version=__version__,
            **{"footer": "", **values},
        )
    )


def write_page(text: str, path: str | Path) -> Path:
    """Write a page to an HTML file; the write is atomic. Raises AvscError and OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
