"""The proxy's fixtures, for tests of what it must refuse."""

from proxy_fixtures import bench, engine, make

__all__ = ["bench", "engine", "make"]
