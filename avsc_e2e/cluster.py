"""Work on a Ray cluster: a call is a task, which Ray runs on any machine and again where a machine is lost."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from avsc_e2e.errors import AvscError

Engine = Literal["local", "ray"]
"""What runs the parts of a job: processes of this machine, or the tasks of a Ray cluster."""
RETRIES = 5
"""Times that a task is run again because its machine or its process was lost."""
AHEAD = 2
"""Tasks that wait for each one that runs: a driver of a million parts keeps few of them."""
PATIENCE = 5.0
"""Seconds that a cluster has to answer."""
STEP = 5.0
"""Seconds between two looks at the cluster while no result comes."""


def spread(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    gpus: float = 0.0,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Any]]:
    """Call `function` (of a module, no closure) on each item as a task of one core, and of `gpus` GPUs, and yield the
    index of an item with its value, in the order in which they come. `waiting` is called now and then.

    The cluster is that of RAY_ADDRESS, else the one of this machine, else a new one of this machine's cores. The
    library must be installed on all of its machines, at the same paths if they are to share folders. Raises what
    `function` raises, and AvscError where there is no such cluster, or a task is lost too often."""
    ray = _connected(gpus)
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, max_calls=0)(function)
    under_way: dict[Any, int] = {}
    following = iter(range(len(items)))
    try:
        while True:
            room = _slots(ray, gpus) * (1 + AHEAD) - len(under_way)
            for index in islice(following, max(room, 0)):
                under_way[task.remote(items[index])] = index
            if not under_way:
                return
            done, _ = ray.wait(list(under_way), timeout=STEP)
            waiting()
            for reference in done:
                yield under_way.pop(reference), _value(ray, reference)
    finally:
        for reference in under_way:
            ray.cancel(reference, force=True)


def _connected(gpus: float) -> Any:
    """The package, connected to a cluster."""
    # Ray asks for none of this by flags. Its own messages are of nodes; ours name files.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise AvscError("--engine ray: ray is not installed: pip install 'avsc-e2e[ray]'") from None
    if not ray.is_initialized():
        _look()
        try:
            with warnings.catch_warnings(action="ignore"):
                ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        except ValueError:  # of the address of a cluster, an option that only a new one takes
            _attach(ray)
        except ConnectionError as error:
            raise _unreachable(error) from None
    if gpus and not ray.cluster_resources().get("GPU"):
        raise AvscError("--device cuda: no machine of the Ray cluster has a GPU; leave it out, or start one that has")
    return ray


def _look() -> None:
    """Check that something listens at RAY_ADDRESS, because Ray itself tries for minutes. Raises AvscError."""
    host, _, port = os.environ.get("RAY_ADDRESS", "").removeprefix("ray://").rpartition(":")
    if not host:  # none, or a word such as auto
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise _unreachable(error) from None


def _attach(ray: Any) -> None:
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise _unreachable(error) from None


def _unreachable(error: Exception) -> AvscError:
    where = os.environ.get("RAY_ADDRESS", "of this machine")
    told = " ".join(str(error).split())[:200]
    return AvscError(f"--engine ray: the cluster {where} cannot be reached ({told}): start one with `ray start --head`")


def _slots(ray: Any, gpus: float) -> int:
    """Tasks that the cluster runs at a time, as it is now."""
    have = ray.cluster_resources()
    return max(int(min(have.get("CPU", 1), have.get("GPU", 0) / gpus if gpus else float("inf"))), 1)


def has_gpus() -> bool:
    """Whether a machine of the cluster has a GPU. Raises AvscError where there is no cluster."""
    return bool(_connected(0.0).cluster_resources().get("GPU"))


def _value(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, AvscError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        told = " ".join(str(error).split())[:200]
        raise AvscError(
            f"--engine ray: a task was lost {RETRIES + 1} times ({type(error).__name__}: {told}): what is finished is "
            "kept; give the machines more memory, or stop losing them, and run it again"
        ) from None
