"""`index.html`: one file that asks for nothing, for light and dark screens, for print and for the keyboard."""

import base64
import io
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from memlib.audit import book
from memlib.audit.members import LEVEL

if TYPE_CHECKING:
    from memlib.audit.report import Pictures, Report

SHOWN = 50  # training images with a row of pictures, and clusters
_LISTED = 200  # rows of the table
_SIDE = 128  # pixels of a thumbnail, at most


def render(report: "Report", told: dict[str, Any], rows: list[dict[str, Any]], images: "Pictures | None") -> str:
    """The page, from a report, its dict, its rows and its images (N, C, H, W); None shows no images."""
    text = resources.files("memlib.audit").joinpath("report.html").read_text(encoding="utf8")
    return Template(text).substitute(
        title=escape(f"Audit of {told['provenance']['what']['source']}"),
        verdict=escape(told["verdict"]),
        change=escape(told["change"]),
        next="".join(f"<li>{escape(what)} ({book.linked(page)}).</li>" for what, page in told["next"]),
        warning=_warning(told),
        key=_key(report, told),
        measures=_measures(told),
        membership=_membership(told["membership"]),
        extraction=_extraction(told["extraction"]),
        data=_data(report, told),
        clusters=_clusters(report, images),
        worst=_worst(report, rows, images),
        rows=_rows(rows),
        shown=min(_LISTED, len(rows)),
        total=len(rows),
        provenance=_provenance(told["provenance"]),
    )


def _warning(told: dict[str, Any]) -> str:
    blind = told["blind"]
    if blind is None or not blind["low"] > 0.5:
        return ""
    return (
        '<p class="warning" role="note"><strong>Training and held-out images can be told apart without the model.'
        f"</strong> AUC {blind['auc']:.2f}, 95 % interval {blind['low']:.2f} to {blind['high']:.2f}. Membership "
        "figures mean nothing here: draw both sets from one source by a coin.</p>"
    )


def _key(report: "Report", told: dict[str, Any]) -> str:
    copies = told["copies"]
    cells = [
        ("copies", f"{copies['k']} of {copies['n']}", f"95 % interval {copies['low']:.1%} to {copies['high']:.1%}"),
        ("repeated training images", f"{told['duplicates']['exact'] + told['duplicates']['near']}",
         f"{told['duplicates']['exact']} exactly, {told['duplicates']['near']} nearly"),
    ]  # fmt: skip
    if told["control"]:
        control = told["control"]
        cells.append(("held-out images that pass as copies", f"{control['k']} of {control['n']}", "the control"))
    if told["membership"] and not report.data.told_apart:
        one = told["membership"]
        cells.append(("AUC of membership", f"{one['auc']:.2f}", f"95 % interval {one['low']:.2f} to {one['high']:.2f}"))
    return "".join(f"<div><dt>{a}</dt><dd><strong>{b}</strong> {c}</dd></div>" for a, b, c in cells)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _measures(told: dict[str, Any]) -> str:
    lines = []
    for name, row in told["measures"].items():
        ends = "" if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}"
        lines.append(_line(name, _number(row["value"]), ends, _number(row["baseline"])))
    return "".join(lines)


def _line(name: str, *cells: str) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _membership(one: dict[str, Any] | None) -> str:
    if one is None:
        return "<p>Not judged: it needs the model, and ten distinct images on either side, training and held-out.</p>"
    lines = "".join(
        _line(name, f"{row['auc']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}")
        for name, row in one["statistics"].items()
    )
    return (
        f"<p>Chosen on one half of the images: {escape(one['statistic'])}. On the other half its AUC is "
        f"{one['auc']:.3f} (95 % interval {one['low']:.3f} to {one['high']:.3f}); at a false-positive rate of "
        f"{one['tpr']['fpr']:.1%} it finds {one['tpr']['k']} of {one['tpr']['n']} members. {one['discoveries']['k']} "
        f"of {one['discoveries']['n']} single images are called members at a false-discovery rate of {LEVEL:.0%}. The "
        f"p-value of the set as a whole is {one['set_p']:.2g}.</p>"
        '<div class="wide" tabindex="0"><table><thead><tr><th>statistic, level chosen on the other half</th>'
        f"<th>AUC</th><th>95 % interval</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _extraction(one: dict[str, Any] | None) -> str:
    if one is None:
        return "<p>Not tried: give --extract with a model.</p>"
    plain, more = one["unguided"], one["more"]
    weights = " and ".join(f"{weight:g}" for weight in sorted(set(one["weights"])))
    return (
        f"<p>Guidance of weight {weights} ({escape(one['labels'])}) gave {one['k']} copies in {one['n']} samples (95 % "
        f"interval {one['low']:.1%} to {one['high']:.1%}) of {one['distinct']} distinct images; the same starts "
        f"without guidance gave {plain['k']} of {plain['n']}, of {plain['distinct']} distinct images. The difference "
        f"of distinct images is {more['distinct']:+d} (95 % interval {more['low']:+.1f} to {more['high']:+.1f}). The "
        "weight of each half of the starts was chosen on the other half.</p>"
    )


def _data(report: "Report", told: dict[str, Any]) -> str:
    found, n = told["data"], len(report.files)
    lines = [
        f"{n} training images, {len(report.data.distinct)} of them distinct; values from {found['low']:.2f} to "
        f"{found['high']:.2f}.",
        f"{len(found['placeholders'])} images are placeholders: without content, or one image very often.",
    ]
    if told["provenance"]["held_out"]:
        lines.append(f"{found['held_out_copies']} held-out images are copies of training images, and were left out.")
    else:
        lines.append(
            "No held-out images were given: copies are judged against the training images themselves, and neither "
            "membership nor C_T nor the DCR share can be known."
        )
    if told["blind"]:
        blind = told["blind"]
        lines.append(
            f"A classifier that sees no model tells training from held-out images with AUC {blind['auc']:.2f} (95 % "
            f"interval {blind['low']:.2f} to {blind['high']:.2f})."
        )
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _clusters(report: "Report", images: "Pictures | None") -> str:
    lines = []
    for cluster in report.data.clusters[:SHOWN]:
        first = report.files[cluster[0]]
        picture = "" if images is None else _button(images[1][cluster[0]], f"training image {first}")
        names = ", ".join(escape(report.files[i]) for i in cluster[:8]) + (", ..." if len(cluster) > 8 else "")
        lines.append(f"<li>{picture} {len(cluster)} copies: {names}</li>")
    return f'<ul class="clusters">{"".join(lines)}</ul>' if lines else "<p>No training image repeats another one.</p>"


def _worst(report: "Report", rows: list[dict[str, Any]], images: "Pictures | None") -> str:
    if images is None:
        return "<p>Images are left out of this report.</p>"
    made, real, held_out = images
    lines, firsts = [], set(report.data.distinct.tolist())
    for row in [row for row in rows if row["sample"] is not None and row["number"] in firsts][:SHOWN]:
        number, name = row["sample"], row["image"]
        copied = f"{row['samples']} samples copy it" if row["samples"] else "no sample copies it"
        cells = [
            ("sample", _button(made[number], f"sample {number}")),
            ("nearest training image", _button(real[row["number"]], f"training image {name}")),
        ]
        other = int(report.copies.other[number])
        if held_out is not None and other >= 0:
            cells.append(("nearest held-out image", _button(held_out[other], f"held-out image {other}")))
        shown = "".join(f"<div><span>{title}</span>{cell}</div>" for title, cell in cells)
        told = f"<strong>{escape(name)}</strong>: {copied}; similarity {row['similarity']:.3f}"
        lines.append(f'<li><p>{row["rank"]}. {told}</p><div class="trio">{shown}</div></li>')
    return f'<ol class="worst">{"".join(lines)}</ol>'


def _rows(rows: list[dict[str, Any]]) -> str:
    names = ("rank", "image", "copies_in_training", "samples", "sample", "similarity", "p")
    lines = []
    for row in rows[:_LISTED]:
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in (row[name] for name in names))
        lines.append("<tr>" + "".join(f"<td>{'' if cell == 'None' else escape(cell)}</td>" for cell in cells) + "</tr>")
    return "".join(lines)


def _provenance(told: dict[str, Any], prefix: str = "") -> str:
    lines = ""
    for name, value in told.items():
        if isinstance(value, dict):
            lines += _provenance(value, f"{prefix}{name} ")
        else:
            lines += _line(prefix + name, escape(str(value)))
    return lines


def _button(image: Tensor, alt: str) -> str:
    """A blurred thumbnail that a click or a key uncovers."""
    return (
        f'<button type="button" class="thumb" aria-pressed="false" title="show or hide">'
        f'<img src="{_png(image)}" alt="{escape(alt)}" width="96" height="96" loading="lazy"></button>'
    )


def _png(image: Tensor) -> str:
    levels = ((image.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    array = levels[0].numpy() if len(levels) == 1 else levels[:3].permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
