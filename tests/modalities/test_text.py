"""Texts in and out: what is unified, removed, rejected and cut."""

import time
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmcore.config import TextSettings
from mmcore.modalities.base import Member, Rejected
from mmcore.modalities.minhash import similarity
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
    assert modality(max_chars=3).process(b"one two\nthree ").facts == {
        "chars": 13,
        "words": 3,
        "encoding": "utf-8",
        "applied": ["cut"],
    }


def test_a_run_of_combining_marks_takes_no_time():
    hostile = "a" + "\u0301\u0323" * 1_000_000
    started = time.monotonic()
    assert len(text_of(hostile)) <= 10_000
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("given_text", ["plain", "Grüße, мир, 世界 👩\u200d👧"])
def test_byte_order_marks_tell_the_encoding(encoding, given_text):
    data = given_text.encode(encoding)
    assert text_of(data) == text_of(data, encoding="cp1252") == given_text
    assert modality().process(data).facts["encoding"].startswith(encoding[:5])
    big = (
        "\ufeff".encode(encoding[:6] + "-be") + given_text.encode(encoding[:6] + "-be") if "8" not in encoding else data
    )
    assert text_of(big) == given_text


SENTENCES = {
    "cp1252": "Das Mädchen läuft über die Straße, während große Vögel über den Bäumen kreisen – “schön”, sagte er.",
    "shift_jis": "これは日本語で書かれた文章です。犬が浜辺を走っています。とても良い天気ですね。",
    "koi8-r": "Девочка бежит по улице, а над деревьями кружат большие птицы, и всё это очень красиво.",
    "gb18030": "这是一个用中文写的句子，狗在海滩上奔跑，今天的天气非常好。",
    "euc-kr": "이것은 한국어로 쓰여진 문장입니다. 개가 해변을 달리고 있습니다. 날씨가 아주 좋습니다.",
    "utf-16-le": "The dog runs along the beach, as dogs do.",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_legacy_encodings_when_asked_for(encoding):
    data = SENTENCES[encoding].encode(encoding)
    assert modality().process(data).code == "not-utf8"
    assert text_of(data, encoding=encoding) == SENTENCES[encoding]
    assert text_of(data, encoding="detect") == SENTENCES[encoding]
    member = modality(encoding="detect").process(data)
    assert "to-utf-8" in member.facts["applied"]
    assert member.facts["encoding"] != "utf-8"


def test_detection_leaves_utf8_alone_and_says_what_it_cannot_tell():
    member = modality(encoding="detect").process("Größe".encode())
    assert member.facts == {"chars": 5, "words": 1, "encoding": "utf-8"}
    assert modality(encoding="detect").process(bytes(range(128, 256)) * 3 + b"\0\1\2").code in {
        "unknown-encoding",
        "wrong-encoding",
    }
    assert modality(encoding="shift_jis").process(b"\x81").code == "wrong-encoding"


@pytest.mark.parametrize("encoding", ["no-such", "base64", "rot13", "idna", "utf-7"])
def test_encodings_that_are_none(encoding):
    with pytest.raises(ValidationError, match="encoding"):
        modality(encoding=encoding)


@pytest.mark.parametrize(
    ("given_text", "limit", "expected"),
    [
        ("ab👩\u200d👩\u200d👧cd", 4, "ab"),
        ("ab👩\u200d👩\u200d👧cd", 7, "ab👩\u200d👩\u200d👧"),
        ("x🇩🇪🇫🇷", 4, "x🇩🇪"),
        ("go👍🏽", 3, "go"),
        ("각가", 1, "각"),
        ("z" + "q\u0323\u0307", 3, "z"),
        ("\u1112\u1161\u11ab" * 3, 2, "한한"),
    ],
)
def test_cuts_never_split_what_is_read_as_one_character(given_text, limit, expected):
    got = text_of(given_text, max_chars=limit)
    clusters = regex.findall(r"\X", unicodedata.normalize("NFC", given_text))
    ends = {"".join(clusters[:count]) for count in range(len(clusters) + 1)}
    if len(clusters[0]) <= limit:
        assert got == expected or got in ends
        assert got in ends
    assert len(got) <= limit


@given(st.text(min_size=1), st.integers(1, 30))
def test_any_cut_is_at_the_last_boundary_within_the_limit(text, limit):
    got = modality(max_chars=limit).process(text.encode("utf-8"))
    whole = modality().process(text.encode("utf-8"))
    if isinstance(whole, Rejected):
        return
    whole = whole.data.decode()
    if regex.match(r"\X", whole).end() > limit:
        return
    expected = ""
    for cluster in regex.findall(r"\X", whole):
        if len(expected) + len(cluster) > limit:
            break
        expected += cluster
    assert got.data.decode() == expected.rstrip()


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>One</p><p>Two &amp; three</p>", "One\nTwo & three"),
        ("<html><head><title>T</title><style>p{}</style></head><body>Seen<script>no()</script></body>", "Seen"),
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("<ul><li>x<li>y</ul>", "x\ny"),
        ("no <b>b</b>old\n   line", "no bold line"),
        ("<!-- gone -->kept<!doctype html>", "kept"),
        ("1 &lt; 2 &#x41; caf&eacute;", "1 < 2 A café"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("<svg><text>no</text></svg>yes", "yes"),
        ("plain text", "plain text"),
    ],
)
def test_html_is_stripped_when_asked(html, expected):
    assert text_of(html, strip_html=True) == expected
    assert text_of("<b>1</b>") == "<b>1</b>"


def test_hostile_html_takes_no_time():
    started = time.monotonic()
    for piece in ("<", "<!--", "<a ", "&", "<a href='", "</", "<!", "<script>", "<svg>", "<p>"):
        modality(strip_html=True).process((piece * 50_000).encode())
    assert time.monotonic() - started < 10


def test_short_texts_are_set_aside():
    assert modality(min_chars=5).process(b"four").code == "too-short"
    assert text_of("fives", min_chars=5) == "fives"
    with pytest.raises(ValidationError, match="min_chars"):
        modality(min_chars=5, max_chars=4)


def test_languages():
    known = {
        "en": "The dog runs along the beach while large birds circle above the trees.",
        "de": "Der Hund läuft am Strand entlang, während große Vögel über den Bäumen kreisen.",
        "fr": "Le chien court le long de la plage pendant que de grands oiseaux volent au-dessus des arbres.",
        "ru": "Собака бежит по пляжу, а над деревьями кружат большие птицы.",
    }
    one = modality(language=True)
    for code, sentence in known.items():
        assert one.process(sentence.encode()).facts["language"] == code
    assert one.process(b"7 + 5").facts["language"] == "und"


def test_copies_share_their_signature():
    words = [f"word{n}" for n in range(120)]
    whole = modality().process(" ".join(words).encode()).signature
    edited = modality().process((" ".join([*words[:60], "another", *words[60:]])).upper().encode()).signature
    other = modality().process(" ".join(f"thing{n}" for n in range(120)).encode()).signature
    assert similarity(whole, edited) > 0.9
    assert similarity(whole, other) < 0.3
    assert modality().process(b"short").signature is None


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
