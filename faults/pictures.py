"""Images: whole ones of every mode and format, under right and wrong names, and damaged, empty and huge ones."""

import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy
from hypothesis import strategies as st
from PIL import Image

from faults import fuzz, spoiling
from memlib import data

FORMATS = {  # format -> the modes that it stores
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr", "LAB"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "I;16"),
}
FRAMES = ("PNG", "TIFF", "WEBP", "GIF")
BANDS = {"1": 1, "L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 1, "F": 1, "YCbCr": 3, "LAB": 3}
LOSSLESS = ("PNG", "BMP", "TIFF")
MAGIC = (
    b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x10\0\0\0WEBP", b"BM", b"GIF89a", b"II*\0", b"P6 9",
)  # fmt: skip
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG", ".JPEG")


class Picture(NamedTuple):
    """An image as it is written."""

    format: str
    mode: str
    width: int
    height: int
    seed: int
    frames: int
    ending: str
    orientation: int
    size: int | None
    changes: list


class Raw(NamedTuple):
    """A file that only begins like an image."""

    content: bytes
    ending: str


def whole() -> st.SearchStrategy[Picture]:
    """Pictures that nothing has damaged."""
    return _pictures(st.just([]))


def damaged() -> st.SearchStrategy[Picture | Raw]:
    """Damaged pictures, and files that only begin like one, or promise a huge one."""
    junk = st.builds(lambda start, rest: start + rest, st.sampled_from(MAGIC), st.binary(max_size=60))
    sides = st.sampled_from([0, 1, 7, 65_535, 10**5, 2**31 - 1, 2**32 - 1])
    huge = st.builds(_promise, st.sampled_from(["PNG", "BMP", "GIF"]), sides, sides)
    files = st.builds(Raw, st.one_of(junk, huge), st.sampled_from(ENDINGS))
    return st.one_of(_pictures(st.lists(spoiling.CHANGES, min_size=1, max_size=3)), files)


def _pictures(changes: st.SearchStrategy[list]) -> st.SearchStrategy[Picture]:
    kinds = st.sampled_from([(name, mode) for name, modes in FORMATS.items() for mode in modes])
    sides = st.one_of(st.integers(1, 24), st.sampled_from([1, 2, 3000]))
    return st.builds(
        lambda kind, *rest: Picture(*kind, *rest),
        kinds, sides, st.integers(1, 24), st.integers(0, 99), st.integers(1, 3), st.sampled_from(ENDINGS),
        st.integers(0, 9), st.sampled_from([None, None, 1, 5, 16]), changes,
    )  # fmt: skip


def read(folder: Path, given: Picture | Raw) -> None:
    """As a set of one image, whose pixels must be those that were written."""
    path = folder / f"a{given.ending}"
    if isinstance(given, Raw):
        path.write_bytes(given.content)
        return _checked(data.load(f"folder:{folder}", 8), 8)
    levels = _levels(given)
    content = _written(given, levels)
    path.write_bytes(spoiling.changed(content, given.changes))
    found = data.load(f"folder:{folder}", given.size)
    _checked(found, given.size)
    if given.size or given.changes:
        return
    turned = Image.open(io.BytesIO(content)).getexif().get(0x0112, 1) in (5, 6, 7, 8)  # not every writer keeps it
    shape = (given.width, given.height) if turned else (given.height, given.width)
    assert found.images.shape[2:] == shape, f"{tuple(found.images.shape)} and not {shape}"
    expected = _expected(given.mode, levels[0])
    if given.format == "BMP" and given.mode == "RGBA":
        expected = None  # Pillow reads no transparency of a BMP
    if given.format in LOSSLESS and given.orientation < 2 and expected is not None:
        got = ((found.images[0].movedim(0, -1) + 1) * 127.5).numpy()
        assert got.shape[2] == (expected.shape[2] if expected.ndim == 3 else 1)
        gap = numpy.abs(got - expected.reshape(got.shape)).max()
        assert gap <= 1.01, f"a pixel is off by {gap:g} levels"


def _checked(found: data.Images, size: int | None) -> None:
    assert len(found) == 1 and found.images.shape[1] in (1, 3) and found.images.isfinite().all()
    assert -1 <= found.images.min() <= found.images.max() <= 1
    assert size is None or found.images.shape[2:] == (size, size)


def _levels(given: Picture) -> numpy.ndarray:
    """Pixels (frames, H, W, bands) as they are stored."""
    numbers, bands = numpy.random.default_rng(given.seed), BANDS[given.mode]
    shape = (given.frames, given.height, given.width, bands)
    if given.mode == "I;16":
        return numbers.integers(0, 65_536, shape, numpy.uint16)
    if given.mode == "F":
        return numbers.normal(0, 300, shape).astype(numpy.float32)
    return numbers.integers(0, 256, shape, numpy.uint8)


def _written(given: Picture, levels: numpy.ndarray) -> bytes:
    frames = []
    for one in levels:
        if given.mode in ("1", "P"):
            image = Image.fromarray(one[..., 0]).convert(given.mode)
        elif given.mode in ("I;16", "F"):
            image = Image.fromarray(one[..., 0])
        else:
            image = Image.frombytes(given.mode, (given.width, given.height), one.tobytes())
        frames.append(image)
    options = {}
    if len(frames) > 1 and given.format in FRAMES:
        options = {"save_all": True, "append_images": frames[1:]}
    if given.orientation and given.format in ("PNG", "JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[0x0112] = given.orientation
        options["exif"] = exif
    file = io.BytesIO()
    frames[0].save(file, format=given.format, **options)
    return file.getvalue()


def _expected(mode: str, levels: numpy.ndarray) -> numpy.ndarray | None:
    """The levels that must come out, by arithmetic of our own; None where a conversion of colours decides."""
    if mode == "L":
        return levels[..., 0].astype(float)
    if mode == "RGB":
        return levels.astype(float)
    if mode == "I;16":
        return levels[..., 0] / 257 - 0.5
    if mode in ("LA", "RGBA"):
        opaque = levels[..., -1:] / 255
        return levels[..., :-1] * opaque + 255 * (1 - opaque) if mode == "RGBA" else None
    return None


def _promise(kind: str, width: int, height: int) -> bytes:
    """The header of an image of this size, and hardly anything behind it."""
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(999))), (b"IEND", b""))
        packed = (struct.pack(">I", len(body)) + name + body + _crc(name + body) for name, body in parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
    if kind == "BMP":
        sizes = (99, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHIIIIHHIIIIII", *sizes) + bytes(99)
    return b"GIF89a" + struct.pack("<HHBBB", width % 65_536, height % 65_536, 0x80, 0, 0) + bytes(99)


def _crc(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


KINDS = {"images, whole": fuzz.kind(whole, read, 16), "images, damaged": fuzz.kind(damaged, read, 14)}
