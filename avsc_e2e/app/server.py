"""The server of the page: it receives a recording, predicts it with each model, and deletes it.

Data of visitors is neither kept nor sent on: an upload is a temporary file that is deleted with its request, results
are only in the response, and no address is logged. Models predict one recording at a time; others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event

from aiohttp import web

from avsc_e2e.app.analysis import analyse
from avsc_e2e.app.limits import Limits, Rate
from avsc_e2e.data.extensions import MEDIA, kind
from avsc_e2e.errors import AvscError
from avsc_e2e.prediction.predictor import Predictor

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PIECE = 1 << 18
"""Bytes of an upload written at a time."""


class Server:
    """Models, limits and examples behind one page."""

    def __init__(
        self,
        models: Mapping[str, Predictor],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        examples: Sequence[Path] = (),
        host: str = "127.0.0.1",
    ):
        """`models`: name on the page -> model. `examples`: recordings to offer."""
        self.models, self.limits, self.host = dict(models), limits, host
        self.examples = {path.name: path for path in examples}
        self.folder = Path(tempfile.mkdtemp(prefix="avsc_app_"))
        self.held = 0
        self._rate, self._turn = Rate(limits.rate), asyncio.Lock()

    def close(self) -> None:
        """Remove all that is left of uploads."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=round(self.limits.size * 1e6))
        application.add_routes(
            [
                web.get("/", self._file),
                web.get("/{name:app\\.(?:css|js)}", self._file),
                web.get("/about", self._about),
                web.get("/examples/{name}", self._example),
                web.post("/predict", self._predict),
            ]
        )
        application.on_cleanup.append(self._cleanup)
        return application

    async def _cleanup(self, _: web.Application) -> None:
        self.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler) -> web.StreamResponse:
        """Answer only requests from pages of this server, so that foreign pages cannot post through a browser."""
        origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        if is_loopback(self.host) and not is_loopback(host.rsplit(":", 1)[0].strip("[]")):
            return _refused(403, f"the page is served on this machine alone, not as {host!r}")
        if origin and origin.split("://", 1)[-1] != host:
            return _refused(403, "requests of other pages are not answered")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE / request.match_info.get("name", "app.html"))

    async def _about(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"models": list(self.models), "limits": asdict(self.limits), "examples": list(self.examples)}
        )

    async def _example(self, request: web.Request) -> web.StreamResponse:
        path = self.examples.get(request.match_info["name"])
        return web.FileResponse(path) if path else _refused(404, "no such example")

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        name = Path(request.query.get("name", "")).name
        suffix = Path(name).suffix.lower()
        if not kind(name):
            return _refused(415, f"{suffix or 'a file without extension'} is not known as video or audio")
        if (request.content_length or 0) > self.limits.size * 1e6:
            return _refused(413, f"the file is larger than {self.limits.size:g} MB, which are allowed")
        if not self._rate.allows(request.remote or ""):
            return _refused(429, f"more than {self.limits.rate} recordings a minute: wait a moment")
        if self.held >= self.limits.waiting:
            return _refused(503, "too many recordings are waiting: try again in a minute")
        self.held += 1
        try:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                path = Path(folder) / f"recording{suffix if suffix in MEDIA else ''}"
                if not await self._receive(request, path):
                    return _refused(413, f"the file is larger than {self.limits.size:g} MB, which are allowed")
                return await self._answer(request, path)
        finally:
            self.held -= 1

    async def _receive(self, request: web.Request, path: Path) -> bool:
        """Write an upload to a file; False where it is larger than allowed."""
        size = 0
        with open(path, "wb", opener=_private) as file:
            async for piece in request.content.iter_chunked(PIECE):
                size += len(piece)
                if size > self.limits.size * 1e6:
                    return False
                file.write(piece)
        return True

    async def _answer(self, request: web.Request, path: Path) -> web.StreamResponse:
        """A JSON object a line: {"waiting": n}, {"model", "progress"}, {"model", "result"} or {"model", "error"}."""
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        stop, loop = Event(), asyncio.get_running_loop()

        async def send(**values: object) -> None:
            await response.write(json.dumps(values).encode() + b"\n")

        try:
            if self._turn.locked():
                await send(waiting=self.held - 1)
            async with self._turn:
                for name, model in self.models.items():
                    tell = lambda share, name=name: asyncio.run_coroutine_threadsafe(  # noqa: E731
                        send(model=name, progress=round(share, 3)), loop
                    )
                    work = asyncio.ensure_future(asyncio.to_thread(_analysed, model, path, self.limits, tell, stop))
                    try:
                        found = await asyncio.shield(work)
                    except asyncio.CancelledError:  # the file may be deleted only after its reader has stopped
                        stop.set()
                        await work
                        raise
                    await send(model=name, **found)
        except ConnectionResetError:
            stop.set()
        with contextlib.suppress(ConnectionResetError):
            await response.write_eof()
        return response


def _analysed(model: Predictor, path: Path, limits: Limits, tell, stop: Event) -> dict[str, object]:
    try:
        return {"result": analyse(model, path, limits, tell, stop)}
    except AvscError as error:
        return {"error": str(error).replace(f"{path}: ", "the recording ").replace(str(path), "the recording")}
    except Exception:  # a defect costs one recording, not the page
        log.exception("a recording could not be predicted")
        return {"error": "the recording could not be predicted; the server's log says why"}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _refused(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


def is_loopback(host: str) -> bool:
    """Whether a host name stands for this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def serve(server: Server, port: int) -> None:
    """Serve until interrupted. Raises AvscError where the port is taken."""
    try:
        web.run_app(
            server.application(), host=server.host, port=port, access_log=None, handler_cancellation=True,
            print=lambda text: log.info("%s", text.replace("(Press CTRL+C to quit)", "Ctrl+C ends it").strip()),
        )  # fmt: skip
    except OSError as error:
        raise AvscError(f"--port {port}: {error.strerror or error}; choose another one") from error
    finally:
        server.close()
