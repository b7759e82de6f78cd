"""Samples streamed to disk: `memlib.cache.shards` under the name that users' scripts import."""

from memlib.cache.shards import Draw, Shards, stream

__all__ = ["Draw", "Shards", "stream"]
