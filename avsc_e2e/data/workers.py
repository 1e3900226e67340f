"""What worker processes of loaders and of `prepare` have in common."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection


def start_worker() -> None:
    """Called in a worker: leave Ctrl-C to the main process, and end when that ends, were it by a kill. A worker of the
    fork server would live on: it keeps the server alive, whose child it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
