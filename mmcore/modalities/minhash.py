"""MinHash signatures of texts: 256 bytes from which the overlap of two texts can be told.

A text's shingles are its runs of five characters, after it is lower-cased and everything but letters and digits has
become one space. The likeness of two texts is the Jaccard index of their sets of shingles, J = |A & B| / |A | B|
(Broder, "On the resemblance and containment of documents", 1997).

The signature has 256 places of one byte each. A place holds 8 bits of the smallest hash of a random part of the
shingles, so that two texts agree in a place with probability J, or by chance with 1/256 (b-bit minwise hashing: Li and
König 2010):

    P(equal) = J + (1 - J) / 256,        estimated J = (equal places / 256 - 1/256) / (1 - 1/256)

Its standard error is at most sqrt(J (1 - J) / 256), .025 at J = .8. The parts are drawn as in Dahlgaard, Knudsen and
Thorup, "Fast similarity sketching" (2017): in each round every shingle falls into one place, earlier rounds win, and
rounds go on until no place is empty. So a signature costs about 2,200 hashes however short the text, where 256
independent hash functions would cost 256 per shingle.

For locality-sensitive hashing the 256 bytes read as 32 little-endian uint64 are 32 bands of 8 places:
texts share a band with probability 1 - (1 - p^8)^32, p = P(equal): .12 at J = .5, .97 at .75, .9999 at .85.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

PLACES = 256
"""Bytes of a signature."""
SHINGLE_CHARS = 5
"""Characters of a shingle."""
MIN_SHINGLES = 16
"""Shorter texts have no signature: of so few shingles, one edit changes most."""
MAX_CHARS = 65_536
"""Only so many characters of a text are looked at."""

_ROUNDS = 256
_HASHES = 2_200  # from so many hashes on, rarely one of 256 places is left empty
_EMPTY = np.uint64(2**64 - 1)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _odd_numbers(count: int) -> NDArray[np.uint64]:
    """The first numbers of SplitMix64 from seed 0, made odd: the same on every machine and in every release."""
    found, state = [], 0
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = ((state ^ (state >> 30)) * int(_MIX[0])) % 2**64
        mixed = ((mixed ^ (mixed >> 27)) * int(_MIX[1])) % 2**64
        found.append((mixed ^ (mixed >> 31)) | 1)
    return np.array(found, np.uint64)


_PAIR, _FOUR, _FIVE = _odd_numbers(3)
_FACTORS = _odd_numbers(3 + _ROUNDS)[3:, np.newaxis]
_ROUND = (np.arange(_ROUNDS, dtype=np.uint64) << np.uint64(56))[:, np.newaxis]
_PLACE = np.uint64(56)
_VALUE = np.uint64(2**56 - 1)
_KEPT = np.uint64(24)
_ASCII = bytes(ord(chr(code).lower()) if code < 128 and chr(code).isalnum() else 32 for code in range(256))
_WORD = re.compile(r"[^\W_]+")


def signature(text: str) -> bytes | None:
    """The 256 bytes of a text; None where it has fewer than 16 shingles.

    Texts that differ only in case, punctuation and white space have equal signatures.
    """
    hashes = _hashes_of_shingles(_letters(text[:MAX_CHARS]))
    if len(hashes) < MIN_SHINGLES:
        return None
    smallest = np.full(PLACES, _EMPTY)
    at_once = -(-_HASHES // len(hashes))
    for first in range(0, _ROUNDS, at_once):
        rounds = slice(first, first + at_once)
        values = hashes * _FACTORS[rounds]
        places = (values >> _PLACE).view(np.int64)
        values &= _VALUE
        values |= _ROUND[rounds]
        np.minimum.at(smallest, places.ravel(), values.ravel())
        if smallest.max() != _EMPTY:
            break
    else:  # a text of few different shingles: what is still empty is filled by all of them
        for place in np.flatnonzero(smallest == _EMPTY):
            smallest[place] = (~hashes * _FACTORS[place] & _VALUE).min()
    return (smallest >> _KEPT).astype(np.uint8).tobytes()


def similarity(a: bytes, b: bytes) -> float:
    """The estimated Jaccard index of two texts' shingles, 0 to 1, from their signatures."""
    equal = float(np.mean(np.frombuffer(a, np.uint8) == np.frombuffer(b, np.uint8)))
    return max(0.0, (equal - 1 / 256) / (1 - 1 / 256))


def _letters(text: str) -> NDArray[np.uint64]:
    """The code points of the lower-cased words, one space between them."""
    if text.isascii():
        return np.frombuffer(b" ".join(text.encode().translate(_ASCII).split()), np.uint8).astype(np.uint64)
    words = " ".join(_WORD.findall(text.lower()))
    return np.frombuffer(words.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)


def _hashes_of_shingles(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 well mixed bits per run of five code points: multiply and add, then the finaliser of SplitMix64."""
    if len(codes) < SHINGLE_CHARS:
        return np.empty(0, np.uint64)
    pairs: NDArray[np.uint64] = codes[:-1] * _PAIR
    pairs += codes[1:]
    fours: NDArray[np.uint64] = pairs[:-2] * _FOUR
    fours += pairs[2:]
    hashes: NDArray[np.uint64] = fours[:-1] * _FIVE
    hashes += codes[4:]
    hashes ^= hashes >> np.uint64(30)
    hashes *= _MIX[0]
    hashes ^= hashes >> np.uint64(27)
    hashes *= _MIX[1]
    hashes ^= hashes >> np.uint64(31)
    return hashes
