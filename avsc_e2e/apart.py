"""Work in processes of its own, which may die without taking the run along: a decoder that crashes, or that asks for
more memory than there is, costs the file that it reads."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

MEMORY = 8 << 30
"""Bytes of address space that a process may ask for beside what it has from the start."""
PATIENCE = 300.0
"""Seconds that a process may take for one value."""


DEATHS = ("the process that read it died", "reading it takes more than")
"""How the reasons of `Died` begin."""


class Died(NamedTuple):
    """What stands in for the values of an item over which its process ended."""

    reason: str


class _Worker:
    """A process that calls functions. It is started as a program of its own, so it imports neither the main script nor
    torch, and inherits no locks."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        serve = f"from avsc_e2e.apart import serve; serve({theirs.fileno()}, {os.getpid()})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", serve],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
        theirs.close()
        self.pipe = Connection(ours.detach())
        self.index = -1
        self.since = math.inf  # the library is imported first

    def give(self, index: int, function: Callable, item: Any) -> None:
        self.index, self.since = index, time.monotonic() if self.since < math.inf else math.inf
        self.pipe.send_bytes(pickle.dumps((function, item)))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


IDLE: list[_Worker] = []
"""Processes that are kept for the next call."""


def apart(
    function: Callable[[Any], Iterable[Any]],
    items: Sequence[Any],
    workers: int = 0,
    *,
    patience: float = PATIENCE,
    keep: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Call `function` (of a module, no closure) on each item, in `workers` processes (0: one for each core), and yield
    the index of an item with each value that its call yields, in the order in which they come. Where the process ends,
    or gives no value for `patience` seconds, the index comes with a `Died`. With `keep` the
    processes wait for the next call, for one takes a second to start. Raises what `function` raises."""
    waiting = deque(enumerate(items))
    crew: list[_Worker] = []
    try:
        for _ in range(min(workers or os.cpu_count() or 1, len(waiting))):
            crew.append(IDLE.pop() if IDLE else _Worker())
            crew[-1].give(*_next(waiting, function))
        while crew:
            ready = wait([worker.pipe for worker in crew], timeout=1.0)
            for worker in list(crew):
                dead = None
                if worker.pipe in ready:
                    try:
                        kind, value = pickle.loads(worker.pipe.recv_bytes())
                    except (EOFError, OSError):
                        dead = Died(f"{DEATHS[0]} ({_ending(worker.process.wait())})")
                elif time.monotonic() - worker.since > patience:
                    dead = Died(f"{DEATHS[1]} {patience:g} s")
                else:
                    continue
                if dead:
                    worker.end()
                    crew.remove(worker)
                    yield worker.index, dead
                    if waiting:
                        crew.append(_Worker())
                        crew[-1].give(*_next(waiting, function))
                elif kind == "error":
                    raise value
                elif kind == "ready":
                    worker.since = time.monotonic()
                elif kind == "value":
                    worker.since = time.monotonic()
                    yield worker.index, value
                elif waiting:
                    worker.give(*_next(waiting, function))
                else:
                    crew.remove(worker)
                    if keep:
                        IDLE.append(worker)
                    else:
                        worker.end()
    finally:
        for worker in crew:
            worker.end()


def _next(waiting: deque, function: Callable) -> tuple[int, Callable, Any]:
    index, item = waiting.popleft()
    return index, function, item


def _ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, out of memory or stopped" if name == "SIGKILL" else f"{name}, its decoder crashed"


def serve(descriptor: int, parent: int) -> None:
    """Answer the calls that come through a socket until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    _limit_memory()
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        function, item = pickle.loads(pipe.recv_bytes())
        pipe.send_bytes(pickle.dumps(("ready", None)))
        while True:
            try:
                for value in function(item):
                    pipe.send_bytes(pickle.dumps(("value", value)))
                answer = pickle.dumps(("end", None))
            except Exception as error:
                answer = pickle.dumps(("error", error))
            pipe.send_bytes(answer)
            function, item = pickle.loads(pipe.recv_bytes())


def _limit_memory() -> None:
    """Have what asks for far too much memory be told that there is none, where the system can."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:
            own = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, most))


def _follow(parent: int) -> None:
    """End when the process that wants the answers does, were it by a kill."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
