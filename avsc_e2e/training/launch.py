"""Several processes on one machine, with the environment that torchrun would give them (--machine.devices)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener
from multiprocessing import connection

import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment

from avsc_e2e.errors import AvscError

GRACE = 10.0
"""Seconds that the other processes have to end after one has failed."""


def launched() -> bool:
    """Whether torchrun, SLURM or `launch` started this process as one of a job."""
    return "LOCAL_WORLD_SIZE" in os.environ or SLURMEnvironment.detect()


def launch(job: Callable[[], object], processes: int) -> None:
    """Run a picklable job in a number of processes on this machine, each with its own device. The log of the first
    process is relayed. The error of the first process that fails is raised as AvscError."""
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise AvscError(f"--machine.devices {processes}: this machine has {torch.cuda.device_count()} GPUs")
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    level = logging.getLogger("avsc_e2e").getEffectiveLevel()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started, ends = [], []
    listener = QueueListener(messages, _Relay())
    listener.start()
    try:
        for rank in range(processes):
            here, there = context.Pipe(duplex=False)
            arguments = (job, rank, processes, port, messages, level, there)
            started.append(context.Process(target=_work, args=arguments))
            started[-1].start()
            there.close()
            ends.append(here)
        failure = _wait(started, ends)
    except KeyboardInterrupt:
        _end(started)
        raise
    finally:
        listener.stop()
    if failure:
        raise AvscError(failure)


def _wait(started: list, ends: list) -> str:
    """Wait for all processes. If one fails, end the others and return the reason."""
    while True:
        running = [
            process.sentinel for process in started if process.exitcode is None
        ]  # read once: one may end in between
        failed = [index for index, process in enumerate(started) if process.exitcode]
        if failed:
            told = [ends[index].recv() for index in failed if ends[index].poll()]
            _end(started)
            return told[0] if told else f"a process of this job ended with status {started[failed[0]].exitcode}"
        if not running:
            return ""
        connection.wait(running)


def _end(started: list) -> None:
    connection.wait([process.sentinel for process in started], timeout=0)
    for process in started:
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()


class _Relay(logging.Handler):
    """Passes a log record of another process to this process's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _work(job: Callable[[], object], rank: int, processes: int, port: int, messages, level: int, end) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": f"avsc_e2e-{port}",
    }  # fmt: skip
    if not torch.cuda.is_available():
        torch.set_num_threads(max((os.cpu_count() or 1) // processes, 1))
    logging.getLogger().addHandler(QueueHandler(messages))
    logging.getLogger("avsc_e2e").setLevel(level)
    try:
        job()
    except AvscError as error:
        end.send(f"{error}")
        raise SystemExit(1) from None
    except Exception as error:
        end.send(f"process {rank} of this job failed: {type(error).__name__}: {error}")
        raise
