"""Tables at any width: whole words, settings as they are typed."""

import pytest

from nexus.cli.table import lay_out, measure, setting, shown, wrap

ADDRESS = "https://download.example.org/models/resnet18-f37072fd.pth"
ROWS = [
    {"tag": "tv_in1k", "top-1": 69.758, "parameters": 11689512, "results": "imagenet-1k top-1 69.758", "url": ADDRESS},
    {"tag": "own", "top-1": None, "parameters": 5, "results": None, "url": "hf-hub:timm/resnet18.a1_in1k"},
]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, None])
def test_no_word_is_broken_and_only_a_long_one_sticks_out(width):
    lines = lay_out(ROWS, width)
    text = "\n".join(lines)
    assert text.count(ADDRESS) == 1
    assert {"11,689,512", "69.76", "tv_in1k", "5"} <= set(text.split())
    if width is not None:
        for line in lines:
            assert len(line) <= width or len(line.split()[-1]) + 2 > width - len("parameters") - 2


def test_what_fits_is_a_table_and_what_does_not_a_block_for_each_row():
    assert lay_out(ROWS[:1], None) == [
        "tag      top-1  parameters  results                   url",
        "-" * 111,
        f"tv_in1k  69.76  11,689,512  imagenet-1k top-1 69.758  {ADDRESS}",
    ]
    assert lay_out(ROWS, 40)[-3:] == ["tag         own", "parameters  5", "url         hf-hub:timm/resnet18.a1_in1k"]


def test_long_texts_give_way_before_short_ones():
    rows = [{"key": "config", "value": "block=basic, num_layers=[2,2,2,2], num_classes=1000"}]
    assert lay_out(rows, 42) == [
        "key     value",
        "-" * 42,
        "config  block=basic, num_layers=[2,2,2,2],",
        "        num_classes=1000",
    ]


def test_columns_of_a_screen():
    assert measure("猫") == 2
    assert measure("e\u0301") == 1
    assert wrap("猫 猫 猫", 5) == ["猫 猫", "猫"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1000, "1,000"), (True, "yes"), (None, ""), (0.00012345, "0.0001234"), (1234.5, "1,234"), ([1, 2], "1, 2")],
)
def test_values_for_people(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1000, "1000"), (True, "true"), (None, "null"), (3e-4, "0.0003"), ([3, 4], "[3,4]"), ({"a": 1}, "{a: 1}")],
)
def test_settings_are_shown_as_they_are_typed(value, text):
    assert setting(value) == text
    assert shown({"key": value}) == f"key={text}"
