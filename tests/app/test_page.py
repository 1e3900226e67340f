"""The page in a browser, clicked as a visitor does, with a real recording, wide and narrow, light and dark."""

import asyncio
import json

import torch
from aiohttp import web
from browser import browser, chromium
from support import real

from avsc_e2e.app.limits import Limits
from avsc_e2e.app.server import Server
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.prediction.predictor import Predictor

PLAYER = "document.querySelector('video').currentTime"


def models():
    torch.manual_seed(0)
    both = Predictor(create_model("tiny").eval(), on_bad="mask")
    frames = Predictor(create_model("tiny", audio="", fusion="").eval(), on_bad="mask")
    return {"hybrid": both, "video": frames}


async def visit(server, folder, act):
    """Do `act(tab)` on the page of a server; afterwards nothing is left of it."""
    runner = web.AppRunner(server.application(), handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with browser(folder) as tab:
            await tab.shape(1280, 900)
            await tab.open(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            await act(tab)
            assert tab.complaints == []
    finally:
        await runner.cleanup()
    assert not server.folder.exists()


async def finished(tab):
    await tab.until("/: (done)$/.test(document.querySelector('#status').textContent)", 90)


def test_a_visitor_chooses_a_file_and_clicks_through_its_timeline(tmp_path):
    chromium()
    clip = real("real_clips/acevedo0103_00_0_md.mp4")
    server = Server(models(), Limits(), [clip])
    names = {"hybrid": server.models["hybrid"](clip), "video": server.models["video"](clip)}

    async def act(tab):
        await tab.choose("#file", clip)
        await finished(tab)
        assert list(server.folder.iterdir()) == []
        assert await tab.see("[...document.querySelectorAll('.model h2')].map(e => e.textContent)") == list(names)
        await tab.until("document.querySelector('video').readyState > 1")
        # A click on the timeline moves the player, and every model shows that second.
        await tab.click(".timeline .lead .lane", 0.65)
        await tab.until(f"Math.abs({PLAYER} - 6.5) < 0.1")
        now = "[...document.querySelectorAll('.now')].map(e => e.textContent)"
        assert await tab.see(now) == ["6.0 s to 7.0 s"] * 2
        window = names["hybrid"].windows[6].probabilities
        best = f"{server.models['hybrid'].classes[window.argmax()]} {round(100 * window.max())} %"
        assert await tab.see("document.querySelector('.voices tbody tr td').textContent") == best
        heads = await tab.see(
            "[...document.querySelector('.voices').querySelectorAll('th[scope=row]')].map(e => e.textContent)"
        )
        assert heads == ["decision", "audio alone", "video alone", "audio head", "video head", "fusion head"]
        head = "parseFloat(document.querySelector('.head').style.left)"
        before = await tab.see(head)
        await tab.press("ArrowLeft")
        await tab.until(f"Math.abs({PLAYER} - 5.5) < 0.1 && {head} < {before}")
        # The timeline moves with the player.
        await tab.see("document.querySelector('video').play()")
        await tab.until("document.querySelector('.now').textContent.startsWith('6.0')", 20)
        await tab.see("document.querySelector('video').pause()")
        await tab.click(".segments tbody button")
        await tab.until(f"{PLAYER} < 0.05")
        await tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        stem, begins = clip.stem, {"segments.csv": "start,end,scene", "vtt": "WEBVTT", "labels.txt": "0.000000\t"}
        for place in range(1, 5):
            await tab.click(f".model .downloads a:nth-of-type({place})")
        for ending in ("json", *begins):
            for _ in range(200):
                if (tmp_path / f"{stem}.{ending}").is_file():
                    break
                await asyncio.sleep(0.05)
        for ending, begin in begins.items():
            assert (tmp_path / f"{stem}.{ending}").read_text().startswith(begin)
        told = json.loads((tmp_path / f"{stem}.json").read_text())
        assert (told["model"], told["segments"][-1]["end"]) == ("hybrid", 10.0)
        for width, scheme, light in ((390, "dark", False), (1280, "dark", False), (390, "light", True)):
            await tab.shape(width, 900, scheme)
            assert await tab.see("document.documentElement.scrollWidth") == width
            page = await tab.see("getComputedStyle(document.body).backgroundColor")
            assert (page == "rgb(255, 255, 255)") == light

    asyncio.run(visit(server, tmp_path / "profile", act))


def test_examples_camera_and_mistakes(tmp_path):
    chromium()
    clip = real("real_actions/test/Surfing/v_Surfing_g01_c01.mp4")
    server = Server({"hybrid": models()["hybrid"]}, Limits(), [clip])
    wrong = tmp_path / "wrong.mp4"
    wrong.write_bytes(b"no video")

    async def act(tab):
        await tab.until("document.querySelector('#examples button')")
        await tab.click("#examples button")
        await finished(tab)
        assert await tab.see("document.querySelectorAll('.model').length") == 1
        await tab.click("#camera")
        await tab.until("/Stop .[1-9]/.test(document.querySelector('#camera').textContent)", 20)
        await tab.click("#camera")
        await tab.until("document.querySelector('#status').textContent === 'camera.webm: done'", 90)
        assert (await tab.see("document.querySelector('#camera').textContent")) == "Record camera"
        assert (await tab.see("document.querySelectorAll('.voices tbody tr').length")) == 6
        await tab.choose("#file", wrong)
        await tab.until("document.querySelector('#status').classList.contains('error')", 30)
        said = await tab.see("document.querySelector('#status').textContent")
        assert said.startswith("hybrid: the recording is not a media file that can be read")
        await tab.until("!document.querySelector('#unplayable').hidden")
        tab.complaints.clear()  # the browser complains of the file too

    asyncio.run(visit(server, tmp_path / "profile", act))
