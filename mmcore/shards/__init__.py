"""The one place that knows how shards are planned, written and read."""
