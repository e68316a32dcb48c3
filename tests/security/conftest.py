"""The proxy's fixtures, for tests of what it must refuse."""

from tests.support.proxy.proxy_fixtures import bench, engine, make

__all__ = ["bench", "engine", "make"]
