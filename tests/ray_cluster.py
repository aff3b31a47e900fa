"""A Ray cluster of processes of this machine, whose nodes share no folder."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

import pytest

STORE_BYTES = 200 * 2**20
TIMEOUT_S = 1800  # a guard against hanging, no measure of speed


class SmallCluster:
    """A head without cores, and nodes of one core each.

    Attributes:
        address: of the head.
        folders: of the nodes, all that they write lies there.
    """

    def __init__(self, root, n_nodes):
        from ray.cluster_utils import Cluster

        self.folders = [root / f"node{number}" for number in range(n_nodes)]
        head = {"num_cpus": 0, "temp_dir": str(root / "head"), "object_store_memory": STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [
            self._cluster.add_node(num_cpus=1, temp_dir=str(folder), object_store_memory=STORE_BYTES)
            for folder in self.folders
        ]
        self.address = self._cluster.address

    def find_files(self, number, pattern):
        """Return what lies in the working directories of a node's programs."""
        return list(self.folders[number].glob(f"session_*/runtime_resources/working_dir_files/*/{pattern}"))

    def kill_at_work(self, number):
        """Kill a node while a call runs there."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.find_files(number, ".runs/*/logs/call.log"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self._cluster.remove_node(self._nodes[number], allow_graceful=False)

    def stop(self):
        self._cluster.shutdown()


@contextlib.contextmanager
def start_cluster(n_nodes=2):
    """Start a cluster; its test is skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with tempfile.TemporaryDirectory(prefix="ray") as folder, pytest.MonkeyPatch.context() as patch:
        # Ray's sockets have long names, of which a system takes 107 characters: not below tmp_path.
        Path(folder, "ray").mkdir()
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        )
        cluster = SmallCluster(Path(folder), n_nodes)
        try:
            yield cluster
        finally:
            cluster.stop()
