"""A sentence alone at the command line; the caller's own line where a programmer works."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memlib.errors import Refused
from memlib.train import Diverged

ROOT = Path(__file__).parents[1]
CALLER = "from memlib import nets\n\ndef mine():\n    return nets.Preconditioned(None, -1.0)\n\nmine()\n"
SENTENCE = "sigma_data is -1.0: give a finite number above 0"
CORE = ["claim.py", "denoiser.py", "inpaint.py", "losses.py", "random.py", "sample.py", "train.py", "run.py"]
CORE += ["nets/*.py", "cache/*.py", "papers/i2i/*.py", "papers/side/*.py"]


def output(command, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


@pytest.mark.parametrize("where", ["script", "notebook"])
def test_a_programmer_sees_the_line_that_was_wrong(where, tmp_path):
    (tmp_path / "own.py").write_text(CALLER, encoding="utf8")
    command = (
        [sys.executable, "own.py"]
        if where == "script"
        else [sys.executable, "-m", "IPython", "--colors=NoColor", "own.py"]
    )
    done = output(command, cwd=tmp_path)
    told = done.stdout + done.stderr
    assert SENTENCE in told and "nets.Preconditioned(None, -1.0)" in told and "mine()" in told
    for error in (Refused, Diverged):
        assert not hasattr(error, "_render_traceback_")


def test_the_command_line_prints_the_sentence_alone():
    done = output([sys.executable, "-m", "memlib.cli", "study", "no_such"])
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted(path for part in CORE for path in (ROOT / "memlib").glob(part)), ids=str)
def test_what_a_user_can_correct_is_refused(path):
    """No plain ValueError, which says nothing about whose mistake it is; Refused is one, for who catches it."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    assert [call.lineno for call in raised if ast.unparse(call.func) == "ValueError"] == []
    assert issubclass(Refused, ValueError)
