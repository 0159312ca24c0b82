"""The field for 64-bit numbers."""

import pytest
from pytestqt.qtbot import QtBot

from gui.hex_field import HexField


@pytest.fixture
def field(qtbot: QtBot) -> HexField:
    made = HexField()
    qtbot.addWidget(made)
    return made


@pytest.mark.parametrize(
    "text",
    ["0x7f1234567000", "7f1234567000", "7F1234567000", "0x7f12_3456_7000", "7f12'3456'7000", "7f12 3456 7000",
     "  0x7f1234567000  ", "7f12`34567000"],
)  # fmt: skip
def test_hex_is_taken_as_people_write_it(field: HexField, text: str) -> None:
    field.setText(text)
    assert field.value == 0x7F12_3456_7000
    assert field.error == ""
    assert field.text() == text


def test_all_64_bits_fit(field: HexField) -> None:
    field.setText("ffff_ffff_ffff_ffff")
    assert field.value == 2**64 - 1


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "is not an address"), ("xyz", "is not an address"), ("-1", "is not an address"),
     ("1_0000_0000_0000_0000", "has more than 64 bits")],
)  # fmt: skip
def test_anything_else_is_a_sentence(field: HexField, text: str, why: str) -> None:
    field.setText(text)
    assert field.value is None
    assert why in field.error
    assert field.text() == text


def test_a_bad_text_is_marked_and_a_good_one_no_more(field: HexField) -> None:
    field.setText("12g4")
    assert field.property("invalid") is True
    assert "12g4" in field.toolTip()
    field.setText("1234")
    assert field.property("invalid") is False
    assert field.toolTip() == ""


def test_a_value_is_shown_in_groups(field: HexField) -> None:
    field.set_value(0x7F12_3456_7000)
    assert field.text() == "0x7f12_3456_7000"


def test_the_users_own_way_of_writing_stays(field: HexField) -> None:
    field.setText("7f1234567000")
    field.set_value(0x7F12_3456_7000)
    assert field.text() == "7f1234567000"
