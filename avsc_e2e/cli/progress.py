"""Progress of long work: a bar with rate and time left on a terminal, nothing where stderr is piped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO


def say(text: str, to: TextIO) -> None:
    """Print a text while a bar may be shown, above the bar."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text, file=to)
        to.flush()
    else:
        print(text, file=to, flush=True)


def progress(label: str, unit: str = "") -> Callable[..., None]:
    """A function that shows `done` of `total` steps with a note behind them; `unit` "B" counts bytes."""
    bar = None

    def show(done: int, total: int, note: str = "") -> None:
        nonlocal bar
        if bar is None:
            from tqdm import tqdm

            bar = tqdm(desc=label, initial=done, total=total, unit=unit or "it", unit_scale=unit == "B", disable=None)
        bar.total = total
        bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return show
