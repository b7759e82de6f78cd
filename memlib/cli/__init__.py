"""The command line: `memlib run`, `study`, `cost`, `chapters`, `book`, `outputs`, `results`, `audit`, `doctor`.

A command imports slow packages only when it needs them. A user's mistake ends in one sentence on stderr and exit code
1 (2 for wrong usage).
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from memlib.chapters import claims
from memlib.cli import chapters
from memlib.errors import Refused
from memlib.settings import SCALES
from memlib.train import Diverged


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse `arguments` (default: the command line), run the command and return the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        return chosen.command(chosen)
    except (Refused, Diverged, chapters.Failed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or closing stdout would raise it again
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="memlib", description="The book on what diffusion models remember.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute one chapter with parameters of your own")
    run.add_argument("chapter", help="02, 02_side, or the path of a notebook")
    run.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="a parameter; may be repeated")
    run.add_argument("--scale", choices=SCALES, help="how large: fast (default), book, gpu, paper")
    run.add_argument("--device", help="such as cpu or cuda:1; default: MEMLIB_DEVICE, or by the scale")
    run.add_argument("--out", type=Path, metavar="FILE.ipynb", help="default: runs/CHAPTER-SCALE.ipynb")
    run.set_defaults(command=_run)

    study = commands.add_parser("study", help="run a paper's experiment without its notebook")
    study.add_argument("study", nargs="?", help="side, 02 or 02_side; without one, the studies are listed")
    study.add_argument("--scale", choices=SCALES, default="fast")
    study.add_argument("--claims", default="", metavar="S1,S2", help="only the groups that measure these")
    study.add_argument("--device", help="such as cpu or cuda:1; default: MEMLIB_DEVICE, or by the scale")
    study.add_argument(
        "--processes", type=int, metavar="N", help="worker processes; default: 2 where there are two cores"
    )
    study.add_argument("--seed", type=int, default=0)
    study.add_argument("-s", "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; repeatable")
    study.add_argument("--out", type=Path, metavar="FOLDER", help="default: results/SCALE, or runs/SCALE with --set")
    study.set_defaults(command=_study)
    cost = commands.add_parser("cost", help="operations, hours and disk of a study, before it is started")
    cost.add_argument("study", help="side, 02 or 02_side")
    cost.add_argument("--scale", choices=SCALES, default="paper")
    cost.add_argument("--devices", type=int, default=1, metavar="N")
    cost.add_argument("--rate", type=float, metavar="R", help="operations a second of a device; default: 4e14")
    cost.add_argument("-s", "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; repeatable")
    cost.set_defaults(command=_cost)
    listing = commands.add_parser("chapters", help="list the chapters and their parameters")
    listing.set_defaults(command=_chapters)

    book = commands.add_parser("book", help="execute the chapters and render the book")
    book.add_argument("--scale", choices=SCALES, default="fast")
    book.add_argument("--chapter", help="execute this one only; the others appear as committed")
    book.set_defaults(command=_book)

    outputs = commands.add_parser("outputs", help="refresh the outputs committed with the chapters")
    outputs.add_argument("chapters", nargs="*", metavar="CHAPTER", help="default: all")
    outputs.set_defaults(command=_outputs)

    results = commands.add_parser("results", help="keep the claims of a run as results/SCALE/CHAPTER.json")
    results.add_argument("notebook", type=Path, help="an executed notebook, such as runs/02_side-book.ipynb")
    results.set_defaults(command=_results)

    _audit_options(commands.add_parser("audit", help="what a model, or images that it made, remembers of its data"))

    doctor = commands.add_parser("doctor", help="list the devices, data and weights found, and what is missing")
    doctor.add_argument("--json", action="store_true", help="the same for a program")
    doctor.add_argument("--hash", action="store_true", help="compute the SHA-256 of large files too")
    doctor.set_defaults(command=_doctor)
    return parser


def _audit_options(audit: argparse.ArgumentParser) -> None:
    audit.add_argument("what", metavar="WHAT", help="a folder of images that were made, or of a diffusers model")
    audit.add_argument("--train", required=True, metavar="DIR", help="its training images")
    audit.add_argument("--held-out", metavar="DIR", help="images of the same source that it never saw")
    audit.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    audit.add_argument("--samples", type=int, default=1000, metavar="N", help="drawn from a model; default: 1000")
    audit.add_argument("--budget", metavar="10m", help="draw no further samples after this time: 90s, 10m, 2h")
    audit.add_argument("--steps", type=int, default=50, metavar="N", help="of sampling; default: 50")
    audit.add_argument("--size", type=int, metavar="N", help="resample all images to NxN pixels")
    audit.add_argument("--label", type=int, metavar="N", help="the class to audit of a class-conditional model")
    audit.add_argument("--vae", metavar="DIR", help="the autoencoder of a model of latents; default: vae/ in WHAT")
    audit.add_argument("--sigma-data", type=float, metavar="X", help="of a network in EDM's preconditioning")
    audit.add_argument("--descriptor", default="auto", help="auto, copies, pixels, sscd:FILE, clip:DIR or dinov2:DIR")
    audit.add_argument("--extract", action="store_true", help="guide the model to training images too (SIDE)")
    audit.add_argument("--no-images", action="store_true", help="a report without pictures")
    audit.add_argument("--fail-above", type=float, metavar="RATE", help="exit code 1 if more samples are copies")
    audit.add_argument("--seed", type=int, default=0)
    audit.add_argument("--device", default="cpu", help="such as cuda:1; default: cpu")
    audit.set_defaults(command=_audit)


def _run(chosen: argparse.Namespace) -> int:
    notebook = chapters.find(chosen.chapter)
    values = chapters.given(notebook, chosen.p, chosen.scale)
    scale = values.get("scale", "fast")
    out = chosen.out or (claims.root() or Path.cwd()) / "runs" / f"{notebook.stem}-{scale}.ipynb"
    with chapters.environment(**({"MEMLIB_DEVICE": chosen.device} if chosen.device else {})):
        chapters.execute(notebook, out, values)
    found = claims.claims_in(out)
    print(f"wrote {out}")
    if found:
        rows = [(claim["id"], claim["verdict"], claims.measured(claim)) for claim in found]
        print(claims.aligned([("claim", "verdict", "measured"), *rows]))
    if found and scale != "fast":
        # Numbers of changed settings are not results of the scale, unless the user says so.
        print(f"kept {_keep(out)}" if not chosen.p else f"not kept as a result of the scale: memlib results {out}")
    return 0


def _study(chosen: argparse.Namespace) -> int:
    from memlib import papers
    from memlib.cli import studies

    if not chosen.study:
        print(studies.listing())
        return 0
    study = papers.find(chosen.study)
    asked = [name for name in chosen.claims.split(",") if name]
    found = studies.run_study(
        study,
        chosen.scale,
        ids=asked,
        seed=chosen.seed,
        device=chosen.device,
        processes=chosen.processes,
        values=chapters.assigned(chosen.set, studies.at(study, chosen.scale)),
        out=chosen.out,
    )
    rows = [(claim["id"], claim["verdict"], claims.measured(claim)) for claim in found]
    print(claims.aligned([("claim", "verdict", "measured"), *rows]))
    if silent := [name for name in asked if name not in {claim["id"] for claim in found}]:
        print(f"{', '.join(silent)}: not measured with these settings; `--scale book` has all parts of a study")
    return 0


def _cost(chosen: argparse.Namespace) -> int:
    from memlib import papers
    from memlib.cli import studies
    from memlib.cost import SUSTAINED

    study = papers.find(chosen.study)
    rate = SUSTAINED if chosen.rate is None else chosen.rate
    values = chapters.assigned(chosen.set, studies.at(study, chosen.scale))
    print(studies.cost(study, chosen.scale, values, chosen.devices, rate))
    return 0


def _chapters(_: argparse.Namespace) -> int:
    for notebook in chapters.every():
        print(f"{notebook.stem}: {chapters.title(notebook)}")
        print(f"  time: {', '.join(f'{scale} {_seconds(notebook.stem, scale)}' for scale in SCALES)}")
        rows = [
            (f"  {name}", parameter["inferred_type_name"], parameter["default"], parameter["help"])
            for name, parameter in chapters.declared(notebook).items()
        ]
        print(claims.aligned(rows) + "\n")
    return 0


def _book(chosen: argparse.Namespace) -> int:
    from memlib.cli import book

    return book.make(chosen.scale, chosen.chapter)


def _outputs(chosen: argparse.Namespace) -> int:
    from memlib.cli import outputs

    failed = []
    for notebook in [chapters.find(name) for name in chosen.chapters] or chapters.every():
        try:
            told = f"{outputs.refresh(notebook, chapters.root())} claims"
        except chapters.Failed as error:
            failed.append(notebook.stem)
            told = f"left as it was: {error}"
        print(f"{notebook.stem:<28} {told}", flush=True)
    if failed:
        print(f"not refreshed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _results(chosen: argparse.Namespace) -> int:
    print(f"kept {_keep(chosen.notebook)}")
    return 0


def _audit(chosen: argparse.Namespace) -> int:
    from memlib.audit import audit

    if chosen.fail_above is not None and not 0 <= chosen.fail_above <= 1:
        raise Refused(f"--fail-above is a rate from 0 to 1, not {chosen.fail_above}")
    report = audit(
        chosen.what,
        chosen.train,
        chosen.held_out,
        chosen.out,
        samples=chosen.samples,
        budget=None if chosen.budget is None else _duration(chosen.budget),
        steps=chosen.steps,
        size=chosen.size,
        label=chosen.label,
        vae=chosen.vae,
        sigma_data=chosen.sigma_data,
        descriptor=chosen.descriptor,
        extract=chosen.extract,
        pictures=not chosen.no_images,
        seed=chosen.seed,
        device=chosen.device,
    )
    print(f"{report.verdict.text}\nwrote {chosen.out / 'index.html'}")
    return int(chosen.fail_above is not None and report.copies.copies.rate > chosen.fail_above)


def _duration(text: str) -> float:
    """Seconds of a time such as 90s, 10m or 2h."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text and text[-1] in units else (text, "s")
    if not number.isascii() or not number.isdigit() or not int(number):
        raise Refused(f"{text!r} is no time: give a whole number and a unit, such as 90s, 10m or 2h")
    return float(int(number) * units[unit])


def _doctor(chosen: argparse.Namespace) -> int:
    from memlib.cli import doctor

    seen = doctor.report(chosen.hash)
    print(doctor.as_json(seen) if chosen.json else doctor.as_text(seen))
    return 0


def _keep(notebook: Path) -> Path:
    """Write the claims of an executed notebook with the provenance of its run, and return the path written."""
    from memlib.cache.atomic import replace_file  # needs torch

    found = list({claim["id"]: claim for claim in claims.claims_in(notebook)}.values())  # the last record of each
    if not found:
        raise Refused(f"{notebook} records no claim: give a notebook that memlib run has executed")
    scale = found[0]["scale"]
    chapter = notebook.stem.removesuffix(f"-{scale}")
    home = claims.root() or Path.cwd()
    record = home / "runs" / f"{chapter}-{scale}.json"
    kept = json.loads(record.read_text(encoding="utf8")) if record.exists() else {"claims": None}
    if kept["claims"] != found:
        raise Refused(f"{record} is not the record of the run in {notebook}: execute it again with memlib run")
    path = home / "results" / scale / f"{chapter}.json"
    text = json.dumps(kept, indent=1) + "\n"
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf8"))
    return path


def _seconds(chapter: str, scale: str) -> str:
    """How long the last run at this scale took, from its record; `?` if there is none."""
    home = chapters.root()
    for record in (home / "runs" / f"{chapter}-{scale}.json", home / "results" / scale / f"{chapter}.json"):
        if record.exists():
            return f"{json.loads(record.read_text(encoding='utf8'))['provenance']['seconds']:.0f} s"
    return "?"
