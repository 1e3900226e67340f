"""One Ray cluster of two nodes on this machine for all tests of the folder."""

import os

import pytest


@pytest.fixture(scope="session")
def cluster():
    """Two nodes of a core each. A loaded machine takes long to start one, so the limits are wide."""
    pytest.importorskip("ray", reason="ray is not installed (pip install 'avsc-e2e[ray]')")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")  # other processes may fill the memory
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the tests themselves, or a loaded machine starves them
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = found.address
    yield found
    ray.shutdown()
    found.shutdown()
    del os.environ["RAY_ADDRESS"]
