"""What pyproject.toml cannot say: a wheel carries the chapters and their kept claims, for `memlib run` to find."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class WithChapters(build_py):
    """Copies `notebooks/*.ipynb` and `results/*/*.json` into the package that is being built."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the checkout itself is where they are found
        for source, pattern in (("notebooks", "*.ipynb"), ("results", "*/*.json")):
            for file in sorted((HERE / source).glob(pattern)):
                target = Path(self.build_lib, "memlib", "book", source, file.relative_to(HERE / source))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


setup(cmdclass={"build_py": WithChapters})
