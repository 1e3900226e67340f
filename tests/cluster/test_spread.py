"""Tasks of a cluster: each item once, however many there are, and again where its machine is lost."""

import threading
import time

import pytest

from avsc_e2e.cluster import spread
from avsc_e2e.errors import AvscError


def _square(number):
    time.sleep(0.05)
    if number < 0:
        raise AvscError(f"{number}: is below 0")
    return number**2


def test_every_item_once(cluster):
    items = list(range(40))  # more than the cluster takes at a time
    assert sorted(spread(_square, items)) == [(number, number**2) for number in items]
    with pytest.raises(AvscError, match=r"^-1: is below 0$"):
        list(spread(_square, [1, -1]))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "here:now"])
def test_an_address_where_nothing_listens_is_one_line(monkeypatch, address):
    ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'avsc-e2e[ray]')")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", None)  # it would try for minutes
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(AvscError, match=f"engine ray: the cluster {address} cannot be reached .*`ray start --head`"):
        list(spread(_square, [1]))


def test_a_node_that_is_lost(cluster):
    node = cluster.add_node(num_cpus=2)
    timer = threading.Timer(0.5, lambda: cluster.remove_node(node, allow_graceful=False))
    timer.start()
    items = list(range(60))
    assert sorted(spread(_square, items)) == [(number, number**2) for number in items]
    timer.join()
