"""Texts in and out: what is unified, removed, rejected and cut."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.config import TextSettings
from mmcore.modalities.base import Member, Rejected
from mmcore.modalities.text import TextModality


def modality(**settings):
    return TextModality(TextSettings(column="text", **settings))


def text_of(data, **settings):
    one = modality(**settings)
    member = one.process(data if isinstance(data, bytes) else data.encode())
    assert isinstance(member, Member), member
    return one.load(member.data)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("plain", "plain"),
        ("\ufeffmark", "mark"),
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("a\u2028b\u0085c\x0cd", "a\nb\nc\nd"),
        ("e\u0301", "é"),
        ("tab\tstays", "tab\tstays"),
        ("bell\x07 and \x1b[31mred\x9b", "bell and [31mred"),
        ("\u202eevil\u202c", "evil"),
        ("  space around \n", "space around"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("7", "7"),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
    ],
)
def test_spelling(given_text, expected):
    assert text_of(given_text) == expected


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty-file"),
        (b" \t\r\n", "empty-text"),
        ("\u200b\u200d\ufeff\u00a0".encode(), "empty-text"),
        (b"\xef\xbb\xbf", "empty-text"),
        (b"\x01\x02", "empty-text"),
        (b"caf\xe9", "not-utf8"),
        (b"\xc0\xaf", "not-utf8"),
        (b"\xed\xa0\x80", "not-utf8"),
        ("text".encode("utf-16"), "not-utf8"),
        ("text".encode("utf-16-le"), "not-utf8"),
        (b"nul\0inside", "not-utf8"),
    ],
)
def test_rejections(data, code):
    got = modality().process(data)
    assert isinstance(got, Rejected)
    assert got.code == code


def test_limits():
    assert text_of("x" * 100, max_chars=10) == "x" * 10
    assert text_of("word  next", max_chars=5) == "word"
    assert text_of("e\u0301" * 20, max_chars=10) == "é" * 10
    assert modality(max_bytes=3).process(b"four").code == "too-many-bytes"
    assert isinstance(modality(max_bytes=4).process(b"four"), Member)


def test_facts_count_the_whole_text():
    assert modality(max_chars=3).process(b"one two\nthree ").facts == {"chars": 13, "words": 3}


def test_a_run_of_combining_marks_takes_no_time():
    hostile = "a" + "\u0301\u0323" * 1_000_000
    started = time.monotonic()
    assert len(text_of(hostile)) <= 10_000
    assert time.monotonic() - started < 10


@given(st.text())
def test_any_text_gives_a_clean_one_and_a_second_time_changes_nothing(text):
    one = modality()
    got = one.process(text.encode("utf-8"))
    if isinstance(got, Rejected):
        assert got.code in {"empty-file", "empty-text", "not-utf8"}
        return
    clean = one.load(got.data)
    assert clean == unicodedata.normalize("NFC", clean)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\t\n" for c in clean)
    assert one.process(got.data).data == got.data


@given(st.binary(max_size=200))
def test_any_bytes_give_a_member_or_a_rejection(data):
    assert isinstance(modality().process(data), Member | Rejected)
