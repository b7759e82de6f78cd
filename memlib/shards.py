"""Samples streamed to disk, under the name that users' scripts know; the code is `memlib.cache.shards`."""

from memlib.cache.shards import Draw, Shards, stream

__all__ = ["Draw", "Shards", "stream"]
