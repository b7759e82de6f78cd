"""Every test session starts with an empty artefact cache, so that nothing passes because it was trained before.

Here and not in tests/: `pytest --nbval notebooks` reads this file too, and the kernels inherit the environment.
"""

import os
import shutil
import tempfile


def pytest_configure(config):
    """Point MEMLIB_CACHE at a fresh folder, silence progress bars, one thread; xdist workers inherit all."""
    if hasattr(config, "workerinput"):
        return
    os.environ["TQDM_DISABLE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: a second thread costs more than it brings
    os.environ["MEMLIB_CACHE"] = config.memlib_cache = tempfile.mkdtemp(prefix="memlib-cache-")


def pytest_unconfigure(config):
    """Remove the folder."""
    shutil.rmtree(getattr(config, "memlib_cache", ""), ignore_errors=True)
