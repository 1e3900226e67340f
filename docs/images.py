"""The images of the pages, made of a demo by headless Chromium, so that none is made by hand.

    python docs/images.py DEMO [--out docs/pictures]

DEMO is what `avsc demo --out DEMO` leaves. Each image is the top of a page as a visitor sees it, wide and light: the
report, the page of the data set, an explanation, and the app with a drawn recording; and the candidates of `avsc train`
on the same recordings. The report and the app are also made narrow and dark.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from aiohttp import web
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Tab, browser  # noqa: E402

from avsc_e2e.app.limits import Limits  # noqa: E402
from avsc_e2e.app.server import Server  # noqa: E402
from avsc_e2e.explanation.occlusion import explain  # noqa: E402
from avsc_e2e.explanation.page import write_explanation  # noqa: E402
from avsc_e2e.learner.fit import fit  # noqa: E402
from avsc_e2e.prediction.predictor import Predictor  # noqa: E402
from avsc_e2e.survey.page import write_survey  # noqa: E402
from avsc_e2e.survey.survey import look  # noqa: E402
from avsc_e2e.toycity.example import EXAMPLES, write_example  # noqa: E402

WIDE, NARROW = (1200, 900, "light"), (420, 900, "dark")


async def shoot(tab: Tab, path: Path) -> None:
    """What the window shows, in few colours, so that the file is small."""
    await tab.picture(path, whole=False)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


async def pages(tab: Tab, found: dict[str, Path], out: Path) -> None:
    for name, page in found.items():
        for shape in (WIDE, NARROW) if name == "report" else (WIDE,):
            await tab.shape(*shape)
            await tab.open(page.resolve().as_uri())
            await tab.see("document.querySelector('.file')?.remove()")  # a path of this machine
            if name == "ladder":
                await tab.see("document.querySelector('#candidates').scrollIntoView({behavior: 'instant'})")
            await shoot(tab, out / f"{name}{'' if shape == WIDE else '_narrow'}.png")


async def app(tab: Tab, predictor: Predictor, clip: Path, out: Path) -> None:
    """The app after a recording is chosen."""
    server = Server({"hybrid": predictor}, Limits(), [clip])
    runner = web.AppRunner(server.application(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        for shape in (WIDE, NARROW):
            await tab.shape(*shape)
            await tab.open(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            await tab.choose("#file", clip)
            await tab.until("/: (done)$/.test(document.querySelector('#status').textContent)", 120)
            await shoot(tab, out / f"app{'' if shape == WIDE else '_narrow'}.png")
    finally:
        await runner.cleanup()


async def make(demo: Path, out: Path) -> None:
    run = demo / "runs" / "hybrid"
    predictor = Predictor(run, on_bad="mask")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        clip = write_example(place / "traffic_then_park.mp4", next(iter(EXAMPLES.values())))
        park = write_example(place / "park.mp4", ("park",))
        learner = demo / "runs" / "learner"
        if not (learner / "report.html").exists():
            fit(demo / "toycity", minutes=5, out=learner)
        found = {"report": run / "evaluation" / "report.html", "ladder": learner / "report.html"}
        found["look"] = write_survey(look(demo / "toycity", fast=True), place / "look.html")
        found["explain"] = write_explanation(explain(predictor, park, windows=4), place / "explain.html")
        async with browser(place / "profile") as tab:
            await pages(tab, found, out)
            await app(tab, predictor, clip, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    asyncio.run(make(options.demo, options.out))


if __name__ == "__main__":
    main()
