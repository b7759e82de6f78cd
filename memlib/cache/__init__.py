"""Slow results, kept on disk under the fingerprint of everything that they depend on.

`fingerprint` is a hash of contents and code, `store` keeps results and trained networks, `checkpoints` those of a
training, `shards` streams many samples to disk, and `atomic` writes every file. `recent`
keeps in memory what no file holds.
"""

from memlib.cache import shards
from memlib.cache._fingerprint import fingerprint
from memlib.cache.shards import Shards, stream
from memlib.cache.store import cached, load, save, trained

__all__ = ["Shards", "cached", "fingerprint", "load", "save", "shards", "stream", "trained"]
