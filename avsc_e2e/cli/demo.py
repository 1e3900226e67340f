"""avsc demo."""

from __future__ import annotations

from pathlib import Path

from avsc_e2e.cli.progress import progress


def demo(out: Path = Path("demo"), quick: bool = False) -> None:
    """Render a toy city, fine-tune audio, video and hybrid on it, evaluate, report and pack a submission.

    Args:
        out: Folder for everything that the demo makes.
        quick: A smaller city and tiny nets: under a minute, to see that all works.
    """
    from avsc_e2e.demo import run_demo

    print(run_demo(out, quick=quick, progress=progress))
