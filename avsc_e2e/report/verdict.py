"""The verdict of a report in words: what was evaluated, how good it is compared with what, and what to do next."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from avsc_e2e.outputs.intervals import Interval, bootstrap, can_resample, percentiles
from avsc_e2e.report.report import Report, Result, Rival
from avsc_e2e.report.words import count, percent, signed

HEADS = ("audio", "video", "fusion")
"""Names of outputs that are heads of one model."""
FUSE = "avsc fuse {} --reference REFERENCE.csv --save fusion.json"
"""Command that is suggested if the report has no `mend`."""


class Verdict(NamedTuple):
    """The sentences at the top of the page."""

    title: str
    """Data set and conclusion."""
    found: list[str]
    """Sentences, most important first."""
    advice: list[tuple[str, str]]
    """Advice, and the command for it, empty if there is none."""


def verdict(report: Report) -> Verdict:
    """The verdict under the report's first protocol."""
    protocol, by_name = next((p, named) for p, named in report.results.items() if report.system in named)
    own = by_name[report.system]
    chance = math.log(len(report.classes))
    others = {name: result for name, result in by_name.items() if name != report.system}
    best = min(others, key=lambda name: others[name].scores.log_loss, default="")
    better = bool(best) and others[best].scores.log_loss < own.scores.log_loss
    whole = percent(own.scores.accuracy)
    if own.scores.log_loss >= 0.98 * chance:
        conclusion = "no better than chance"
    elif better:
        conclusion = f"{whole} accuracy, but {called(best)} alone has the lower log loss"
    elif best:
        all_heads = all(name in HEADS for name in others)
        conclusion = f"{whole} accuracy, the lowest log loss of {'all heads' if all_heads else 'all systems'}"
    else:
        conclusion = f"{whole} accuracy"
    where = f" on {report.data}" if report.data else ""
    found = [_made(report), _reached(report, protocol, own), f"{_chance(report, own)}"]
    if best:
        found.append(_against(own, others[best], f"{called(best)} alone" if best in HEADS else best))
    for rival in (report.probe, report.rival):
        if isinstance(rival, Rival) and rival.protocol == protocol:
            found.append(_beside(own, rival))
    if isinstance(report.rival, str) and report.rival in others and report.rival != best:
        found.append(_against(own, others[report.rival], report.rival))
    return Verdict(f"{report.title}{where}: {conclusion}", [f for f in found if f], _advice(report, own, best, better))


def called(name: str) -> str:
    return f"the {name} head" if name in HEADS else name


def _made(report: Report) -> str:
    """One sentence on the model and its training set."""
    if not report.train_rows:
        return ""
    sources = len({row.location or row.file for row in report.train_rows})
    data = f" of {report.data}" if report.data else ""
    origins = count(sources, "location or source", "locations or sources")
    return (
        f"{report.title} was trained on {count(len(report.train_rows), 'recording')} of "
        f"{count(len(report.classes), 'class', 'classes')}{data}, from {origins}."
    )


def _reached(report: Report, protocol: str, own: Result) -> str:
    recordings = count(len(set(own.output.files)), "recording")
    sample = f"{own.scores.count:,} segments of {recordings}" if own.output.start is not None else recordings
    loss, accuracy = own.intervals
    spans = f" ({_words(accuracy, '.1%')})", f" ({_words(loss, '.3f')})" if loss else ""
    return (
        f"On {sample} ({protocol}), {report.system} reaches a macro accuracy of "
        f"{percent(own.scores.accuracy)}{spans[0]} and a macro log loss of {own.scores.log_loss:.3f}{spans[1]}."
    )


def _words(span: Interval | None, form: str) -> str:
    if span is None:
        return "no interval"
    low, high = format(span.low, form).removesuffix("%"), format(span.high, form).replace("%", "\u00a0%")
    return f"95 % interval {low} to {high}"


def _chance(report: Report, own: Result) -> str:
    k = len(report.classes)
    return (
        f"Chance, with {count(k, 'class', 'classes')}, is {percent(1 / k)} and {math.log(k):.3f} nats: the log loss is "
        f"{percent(own.scores.log_loss / math.log(k), 0)} of that."
    )


def paired(own: Result, other: Result) -> Interval | None:
    """95 % interval of the difference of macro log losses; None if rows differ or locations are too few."""
    first, second = (np.zeros(1) if r.output.start is None else r.output.start for r in (own, other))
    if own.output.files != other.output.files or not np.array_equal(first, second):
        return None
    if not can_resample(own.targets, own.places):
        return None
    return percentiles(
        bootstrap(own.losses, own.targets, own.places) - bootstrap(other.losses, other.targets, other.places)
    )


def _against(own: Result, other: Result, name: str) -> str:
    """One sentence that compares the system with another output."""
    loss = own.scores.log_loss - other.scores.log_loss
    span = paired(own, other)
    sure = "" if span is None else f" (95 %: {signed(span.low, 3)} to {signed(span.high, 3)})"
    open_ = span is not None and span.low <= 0 <= span.high
    ending = "; zero is inside this interval, so the order is not certain" if open_ else ""
    points = signed(100 * (own.scores.accuracy - other.scores.accuracy), 1)
    return f"Against {name}: log loss {signed(loss, 3)}{sure}, accuracy {points} points{ending}."


def _beside(own: Result, rival: Rival) -> str:
    parts = []
    if math.isfinite(rival.log_loss):
        parts.append(f"log loss {signed(own.scores.log_loss - rival.log_loss, 3)}")
    if math.isfinite(rival.accuracy):
        parts.append(f"accuracy {signed(100 * (own.scores.accuracy - rival.accuracy), 1)} points")
    return f"Against {rival.name}: {', '.join(parts)}." if parts else ""


def _advice(report: Report, own: Result, best: str, better: bool) -> list[tuple[str, str]]:
    advice = []
    if better and best in HEADS:
        advice.append(
            (
                f"T{called(best)[1:]} has a lower log loss than the decision. Fit the weights of the heads, on "
                "recordings that this test does not use, such as the validation set:",
                report.mend or FUSE.format("AUDIO.csv VIDEO.csv FUSION.csv"),
            )
        )
    elif better:
        said = f"{best} has the lower log loss. Try the fusion of both:"
        advice.append((said, report.mend or FUSE.format(f"{report.system}.csv {best}.csv")))
    gap = float(own.output.probabilities.max(1).mean()) - own.scores.micro_accuracy
    if abs(gap) > 0.05:
        word = "overconfident" if gap > 0 else "underconfident"
        advice.append(
            (
                f"Its probabilities are {word}: the mean confidence is {percent(gap + own.scores.micro_accuracy)}, "
                f"{percent(own.scores.micro_accuracy)} of the decisions are right. Calibrate them, on an "
                "output for recordings that neither training nor this test used:",
                report.calibrate or "avsc calibrate OUTPUT.csv --reference REFERENCE.csv --save calibration.json",
            )
        )
    loss = np.nan_to_num(own.scores.class_log_loss, nan=-1)
    worst = int(loss.argmax())
    if own.scores.accuracy < 1 and loss[worst] > 1.5 * own.scores.log_loss:
        advice.append(
            (
                f"The hardest class is {report.classes[worst]}, with a log loss of {loss[worst]:.3f}. Look at its "
                "clips below, and check their labels or add more of them.",
                "",
            )
        )
    return advice
