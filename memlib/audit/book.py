"""The book's chapters as a report names them, and where they are published, if they are.

A report is opened alone, far from the book: it links to the published pages, or it names the chapters.
"""

from html import escape
from importlib import metadata

TITLES = {  # the first headings of the notebooks; a test holds the two together
    "02_side": "SIDE: what an unconditional model gives away",
    "06_synthesis": "Synthesis: what a synthetic data set gives away",
    "07_closed_loop": "The closed loop: does unlearning help?",
}


def address() -> str:
    """Where the book is published: `Documentation` of the project's own `[project.urls]`, or an empty text."""
    try:
        urls = metadata.metadata("memlib").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:  # run from its source
        return ""
    named = dict(text.split(", ", 1) for text in urls if ", " in text)
    found = named.get("Documentation", "").rstrip("/")
    return found if found.startswith(("https://", "http://")) else ""


def named(page: str) -> str:
    """The chapter of a page such as `02_side`, in words: its number and its title."""
    return f"chapter {int(page[:2])}, {TITLES[page]}"


def linked(page: str) -> str:
    """The same as HTML, with a link to the published page if there is one."""
    text, book = escape(named(page)), address()
    return f'<a href="{escape(book)}/notebooks/{page}.html" rel="noreferrer">{text}</a>' if book else text
