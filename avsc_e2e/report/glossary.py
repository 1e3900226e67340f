"""The terms of a page: their first occurrence is linked, and they are explained at the end."""

from __future__ import annotations

import re
from html import escape

TERMS = {
    "accuracy": "The share of decisions that are right, from 0 to 100 %. Higher is better.",
    "log loss": "The mean of −log p, where p is the probability that the system gave to the true class; p is clipped "
    "at 1e-15 and rows are not renormalised. 0 is perfect. Lower is better. It punishes a wrong answer more, the "
    "surer the system was.",
    "nats": "The unit of the log loss with the natural logarithm: 0.693 nats is one bit.",
    "macro": "The mean over classes of the mean over the rows of each class, so that a frequent class weighs no more "
    "than a rare one.",
    "decision": "The final probabilities of a system: a weighted combination of its heads.",
    "head": "The last layer of a branch of the network. Each head gives probabilities of its own.",
    "fusion": "Combining audio and video. The fusion head reads both branches inside the network; the decision "
    "combines the probabilities of all heads.",
    "segment": "One second of a recording, classified alone.",
    "clip": "A whole recording: the sum of the probabilities of its segments decides.",
    "location": "Where a recording comes from, or its source file. Clips of one location resemble each other, so "
    "training and test sets share none.",
    "95 % interval": "The range in which the figure of about 95 of 100 such test sets would lie, by bootstrap over "
    "locations. The accuracy of few locations, or without an error, has Wilson's interval.",
    "calibration error": "The mean distance between confidence and the share that is right, over 15 bins of "
    "confidence. 0 is perfect.",
    "Brier score": "The mean squared distance between probabilities and the true class, from 0 (perfect) to 2.",
    "confidence": "The probability of the most probable class.",
    "out of fold": "Predicted by a model that was not trained on the source of the recording.",
    "frozen probe": "A linear classifier on the features of pretrained networks that are not trained further.",
    "epoch": "One pass over the training set.",
    "log-mel spectrogram": "The level of the audio over time and frequency, low frequencies at the bottom.",
    "occlusion": "Hiding a part of the input to see how much the probability depends on it.",
}
"""Term -> its meaning, in one or two plain sentences."""

_WITHOUT = re.compile(r"<(a|svg|h1|h2|h3|th|style|summary|label|title|button|dt|audio|code)[\s>]")


def linked(body: str) -> tuple[str, dict[str, str]]:
    """The HTML with the first occurrence of every term linked to the glossary, and the terms that occur."""
    left, used, skip = dict(TERMS), {}, ""
    words = "|".join(re.escape(term) for term in sorted(TERMS, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])({words})(s|es)?(?![\w-])")

    def link(match: re.Match) -> str:
        term = match[1]
        if term not in left:
            return match[0]
        used[term] = left.pop(term)
        return f'<a class="term" href="#term-{anchor(term)}">{match[0]}</a>'

    parts = re.split(r"(<[^>]*>)", body)
    for i, part in enumerate(parts):
        if part.startswith("<"):
            if skip:
                skip = "" if part == f"</{skip}>" else skip
            elif found := _WITHOUT.match(part):
                skip = found[1]
        elif not skip:
            parts[i] = pattern.sub(link, part)
    return "".join(parts), {term: used[term] for term in TERMS if term in used}


def anchor(term: str) -> str:
    """A term as the end of an id."""
    return escape(re.sub(r"\W+", "-", term))
