"""The processes of a job: those that torchrun started, and their worker processes."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any


def rank() -> int:
    """Which of the processes this one is, as torchrun or SLURM say."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def count() -> int:
    """Processes that torchrun started, on all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


@functools.cache
def leave_at_exit() -> None:
    """Have this process leave the group of processes, if one was made, before the interpreter goes: gloo's threads
    abort a process that ends with them running (https://github.com/pytorch/pytorch/issues/190489)."""

    import torch

    @atexit.register
    def leave() -> None:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """What every process brings, in the order of their ranks, to all of them. Values are pickled between processes of
    one job."""
    if count() == 1:
        return [value]
    import torch  # where it is needed: workers that only draw or decode start without it

    from avsc_e2e.devices import device

    leave_at_exit()
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    if torch.distributed.get_backend() == "nccl":
        torch.cuda.set_device(device())
    values: list[Any] = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return values


def meet() -> None:
    """Wait until every process of the job is here; alone, go on."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


@contextmanager
def without_main() -> Iterator[None]:
    """Worker processes that are started meanwhile do not run the caller's script again, as they would before their own
    work: so it needs no `if __name__ == "__main__"`. What they are given must not come from that script."""
    main = sys.modules["__main__"]
    kept: dict[str, object] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(kept)


def start_worker() -> None:
    """Called in a worker: leave Ctrl-C to the main process, and end when that ends, were it by a kill. A worker of the
    fork server would live on: it keeps the server alive, whose child it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
