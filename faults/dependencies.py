"""A report on what is installed: known vulnerabilities by pip-audit, and licences. It is no gate: its exit code is 0.

`make audit-deps`. Without a network it says so, and lists the licences alone.
"""

import importlib.util
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
APART = ROOT / "_build" / "pip-audit"  # a virtual environment of its own: it is not part of ours
_LONGEST = 60


def vulnerabilities() -> str:
    """What the database osv.dev knows of the pinned versions, or in a sentence why it could not be asked."""
    python = Path(sys.executable)
    if not importlib.util.find_spec("pip_audit"):
        python = APART / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        if not python.exists():
            venv.create(APART, with_pip=True)
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", "pip-audit"], capture_output=True, text=True)
        if done.returncode:
            return f"pip-audit is not installed and could not be fetched: {_last(done.stderr)}"
    command = [python, "-m", "pip_audit", "--requirement", PINS, "--no-deps", "--disable-pip", "-s", "osv"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True)
    if done.returncode and not done.stdout.strip():
        return f"the vulnerability database could not be asked, which needs a network: {_last(done.stderr)}"
    return "\n".join(part for part in (done.stderr.strip(), done.stdout.strip()) if part)


def licences() -> list[tuple[str, str, str]]:
    """Name, version and licence of every pinned package that is installed."""
    rows = []
    for line in PINS.read_text(encoding="utf8").splitlines():
        name, pinned, _ = line.partition("==")
        if pinned and not name.startswith("#"):
            try:
                rows.append((name, metadata.version(name), licence(metadata.metadata(name))))
            except metadata.PackageNotFoundError:
                continue
    return rows


def licence(told: metadata.PackageMetadata) -> str:
    """The licence as a package states it: its expression, its classifiers, or the first line of its text."""
    if expression := told.get("License-Expression"):
        return expression
    classifiers = [
        text.rpartition(" :: ")[2] for text in told.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    stated = (told.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (stated[0][:_LONGEST] if stated else "not stated")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason was given"


def main() -> int:
    """Print both."""
    print(f"Known vulnerabilities\n{vulnerabilities()}\n\nLicences")
    for name, version, stated in licences():
        print(f"{name:30} {version:16} {stated}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
