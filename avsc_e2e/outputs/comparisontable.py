"""A comparison of systems as text."""

from __future__ import annotations

import math

import numpy as np

from avsc_e2e.outputs.comparison import Comparison
from avsc_e2e.outputs.intervals import Interval

BLOCKS = " ▏▎▍▌▋▊▉█"


def comparison_table(found: Comparison, most: int = 5) -> str:
    """A comparison as text, with the first `most` rows on which the systems disagree."""
    width = max(18, *(len(name) + 2 for name in (*found.systems, *found.classes)))
    total = next(iter(found.scores.values())).count
    heads = f"{'log loss':>9}{'95 % by location':>19}{'accuracy':>11}{'Wald':>15}{'by location':>15}"
    lines = [f"{found.protocol or 'rows'}: {total} of {found.locations} locations"]
    lines += [f"warning: {found.warning}"] if found.warning else []
    lines += ["", f"{'':<{width}}{heads}"]
    for name in found.systems:
        scores, honest = found.scores[name], found.bootstrap[name]
        lines.append(
            f"{name:<{width}}{scores.log_loss:>9.4f}{_span(honest.log_loss):>19}{100 * scores.accuracy:>9.2f} %"
            f"{_percents(found.wald[name].accuracy):>15}{_percents(honest.accuracy):>15}"
        )
    for combination in found.combinations:
        label = "all" if len(combination.systems) == len(found.systems) else f"best {len(combination.systems)}"
        for kind in ("vote", "oracle"):
            spans = getattr(combination, f"{kind}_intervals")
            lines.append(
                f"{f'{kind} of {label}':<{width}}{'':>28}{100 * getattr(combination, kind):>9.2f} %"
                f"{_percents(spans[0]):>15}{_percents(spans[1]):>15}"
            )
    lines += ["", f"Spearman of accuracy and log loss (ranks)  {found.rank_correlation:.2f}"]
    if found.size_correlation is not None:
        lines.append(f"Spearman of parameters and rank            {found.size_correlation:.2f}")
    wide = max(len(f"{pair.first} - {pair.second}") for pair in found.pairs) + 2
    heads = f"{'agree':>8}{'right alone':>14}{'McNemar p':>11}{'log loss':>10}{'95 %':>18}{'p':>8}"
    lines += ["", f"{'paired':<{wide}}{heads}"]
    for pair in found.pairs:
        span = f"{pair.interval.low:+.3f}, {pair.interval.high:+.3f}" if pair.interval else "none"
        lines.append(
            f"{f'{pair.first} - {pair.second}':<{wide}}{100 * pair.agreement:>6.1f} %"
            f"{f'{pair.only_first} : {pair.only_second}':>14}{pair.mcnemar:>11.2g}"
            f"{pair.log_loss:>+10.4f}{span:>18}{'' if math.isnan(pair.p) else f'{pair.p:.2g}':>8}"
        )
    lines += ["", "log loss by class"]
    lines.append(f"{'':<{width}}" + "".join(f"{name[:17]:<19}" for name in found.systems))
    high = max(np.nanmax(found.scores[name].class_log_loss) for name in found.systems)
    for i, label in enumerate(found.classes):
        values = [found.scores[name].class_log_loss[i] for name in found.systems]
        lines.append(f"{label:<{width}}" + "".join(f"{v:6.3f} {_bar(v / high, 10):<12}" for v in values))
    lines += ["", f"no common decision on {len(found.disagreements)} of {total} rows, most often between"]
    lines += [f"  {first} and {second}: {count}" for first, second, count in found.confused[:most]]
    for item in found.disagreements[:most]:
        where = item.file if item.start is None else f"{item.file} at {item.start:g} s"
        lines.append(f"  {where} ({item.scene}): {', '.join(item.decisions)}")
    return "\n".join(line.rstrip() for line in lines)


def _span(interval: Interval | None) -> str:
    return f"{interval.low:.3f} - {interval.high:.3f}" if interval else "none"


def _percents(interval: Interval | None) -> str:
    return f"{100 * interval.low:.1f} - {100 * interval.high:.1f}" if interval else "none"


def _bar(share: float, width: int) -> str:
    """A bar of eighths of a character."""
    if np.isnan(share):
        return ""
    eighths = round(8 * width * share)
    return "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()
