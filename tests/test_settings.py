"""Settings as a frozen dataclass: types, ranges and choices, each refused in one sentence."""

import math
from typing import Annotated, Literal

import pytest
import tiny_study

from memlib.errors import Refused
from memlib.settings import Between, changed, checked_value, typed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambada": 3}, ["lambada"]),
        ({"n_trian": 3}, ["n_trian", "closest: n_train"]),
        ({"n_train": "abc"}, ["n_train", "'abc'", "int"]),
        ({"n_train": True}, ["n_train", "True", "int"]),
        ({"n_train": 4.5}, ["n_train", "4.5", "int"]),
        ({"n_train": None}, ["n_train", "None", "int"]),
        ({"weight": "2"}, ["weight", "'2'", "float"]),
        ({"weight": False}, ["weight", "False", "float"]),
        ({"weight": math.nan}, ["weight", "nan", "between"]),
        ({"n_train": 101}, ["n_train", "101", "between 2 and 100"]),
        ({"levels": [1, "x"]}, ["levels", "list[float]"]),
        ({"levels": [1, 99]}, ["levels", "99", "between"]),
        ({"half": "raport"}, ["half", "'raport'", "'explore' or 'report'", "closest: report"]),
        ({"limit": "x"}, ["limit", "int | None"]),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(change, words):
    with pytest.raises(Refused) as refused:
        changed(tiny_study.SCALES["fast"], change)
    sentence = str(refused.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_values_are_converted_and_the_rest_stays():
    before = tiny_study.SCALES["book"]
    after = changed(before, {"weight": 9, "levels": [1, 2], "limit": 4})
    assert (after.n_train, after.weight, after.levels, after.limit) == (16, 9.0, [1.0, 2.0], 4)
    assert type(after.weight) is type(after.levels[0]) is float
    assert before.weight == 2.0 and changed(before, {}) == before


def test_whole_floats_are_whole_numbers():
    """`-p n_train=1e1` is 10, as it says."""
    after = changed(tiny_study.SCALES["book"], {"n_train": 1e1, "limit": 2e3, "weight": 1e1})
    assert (after.n_train, after.limit) == (10, 2000) and type(after.n_train) is type(after.limit) is int
    assert type(after.weight) is float
    assert typed("sizes", [8.0, 16], tuple[int, ...]) == (8, 16)
    for value in (math.inf, math.nan, 1e-3):
        with pytest.raises(Refused, match="it must be int"):
            typed("n", value, int)


def test_classes_are_numbers_or_names():
    kind = Annotated[tuple[int | str, ...], Between(0, 9)]
    assert checked_value("forget", [3, "cat", 7.0], kind) == (3, "cat", 7)
    with pytest.raises(Refused, match="between 0 and 9"):
        checked_value("forget", [3, 10], kind)


def test_annotations_of_other_kinds():
    assert typed("sizes", [8, 16], tuple[int, ...]) == (8, 16)
    assert typed("pair", [1, 2], tuple[float, int]) == (1.0, 2)
    assert typed("x", 1, float | int) == 1 and type(typed("x", 1, float | int)) is int
    assert typed("flag", True, bool) is True
    assert typed("arms", ["a"], list[Literal["a", "b"]]) == ["a"]
    for value, kind in [([1], tuple[int, int]), (1, bool), ({}, list), (["c"], list[Literal["a", "b"]])]:
        with pytest.raises(Refused):
            typed("x", value, kind)
