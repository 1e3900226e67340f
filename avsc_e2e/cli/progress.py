"""Progress of long work: a bar with rate and time left on a terminal, nothing where stderr is piped."""

from __future__ import annotations

from collections.abc import Callable


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
