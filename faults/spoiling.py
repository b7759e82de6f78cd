"""Damage to the bytes and the lines of a file, as Hypothesis draws it."""

from collections.abc import Callable

from hypothesis import strategies as st

Change = Callable[[bytes], bytes]


class Cut:
    """Keep the first part."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    def __call__(self, content: bytes) -> bytes:
        return content[: int(self.fraction * len(content))]

    def __repr__(self) -> str:
        return f"Cut({self.fraction})"


class Put:
    """Write bytes over, or into, some place."""

    def __init__(self, place: float, new: bytes, over: bool) -> None:
        self.place, self.new, self.over = place, new, over

    def __call__(self, content: bytes) -> bytes:
        start = int(self.place * len(content))
        return content[:start] + self.new + content[start + len(self.new) * self.over :]

    def __repr__(self) -> str:
        return f"Put({self.place}, {self.new!r}, {self.over})"


class Line:
    """Replace one line by others."""

    def __init__(self, place: float, new: list[bytes]) -> None:
        self.place, self.new = place, new

    def __call__(self, content: bytes) -> bytes:
        lines = content.split(b"\n")
        at = int(self.place * (len(lines) - 1))
        return b"\n".join([*lines[:at], *self.new, *lines[at + 1 :]])

    def __repr__(self) -> str:
        return f"Line({self.place}, {self.new!r})"


PLACES = st.floats(0, 1)
CUTS = PLACES.map(Cut)
PUTS = st.builds(Put, PLACES, st.binary(min_size=1, max_size=12), st.booleans())
WORDS = st.one_of(
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"000001.jpg", b"000001.jpg 10", b"-1", b"9" * 40]),
    st.just(b"1 1 1 1"),
    st.binary(max_size=30),
    st.text(max_size=20).map(lambda text: text.encode("utf8", "surrogatepass")),
)
LINES = st.builds(Line, PLACES, st.lists(WORDS, max_size=3))
CHANGES = st.one_of(CUTS, PUTS, LINES, st.binary(max_size=64).map(lambda new: Put(0, new, True)))
"""One change of the content of a file."""


def changed(content: bytes, changes: list[Change]) -> bytes:
    """The content after all changes, in their order."""
    for change in changes:
        content = change(content)
    return content
