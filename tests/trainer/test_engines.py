"""Loading weights into engines over HTTP: which calls they get, in which order."""

from weight_engine import WeightServer

from odradek.trainer.checkpoint import WEIGHTS
from odradek.trainer.weights.engines import Engines


def weights(tmp_path, version):
    """A folder of weights."""
    folder = tmp_path / f"v{version}"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"weights %d" % version)
    return folder


def test_an_engine_is_paused_until_its_cache_is_reset_under_all_requests(tmp_path):
    """A reset without `reset_running_requests` does nothing while anybody samples, and says 200."""
    with WeightServer() as server:
        Engines([server.url]).swap(weights(tmp_path, 3), 3)
    assert [
        "/pause?mode=keep",
        "/collective_rpc",
        "/update_weight_version",
        "/reset_prefix_cache?reset_running_requests=true&reset_external=true",
        "/resume",
    ] == server.asked
