"""What was slow to make, kept on disk under the name of everything that it depends on.

`fingerprint` tells contents and code apart, `store` keeps results and trained networks, `shards` streams many samples
to disk, and `atomic` is the one way in which a file is written.
"""

from memlib.cache import shards
from memlib.cache._fingerprint import fingerprint
from memlib.cache.shards import Shards, stream
from memlib.cache.store import cached, load, save, trained

__all__ = ["Shards", "cached", "fingerprint", "load", "save", "shards", "stream", "trained"]
