"""The small data set of the shards' tests."""

from tests.shards.conftest import bench, serial

__all__ = ["bench", "serial"]
