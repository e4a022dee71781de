"""Words spoken by espeak-ng, whose library and voices come in the `espeakng-loader` wheel (GPL, an optional extra).

The library keeps state from one utterance to the next, so the same words sound a little different the second time.
It therefore runs in a child process of its own, `python -m mmcore.samples.speech`: equal utterances in equal order
give equal bytes, whatever the calling process did before.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from importlib.util import find_spec
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcore.errors import InputError, Problem

SAMPLE_RATE_HZ = 22_050
"""Of all of espeak-ng's voices."""
SYNCHRONOUS = 2
"""espeak_AUDIO_OUTPUT: hand the samples to the callback, return when all were handed over."""
DONT_EXIT = 0x8000
"""espeakINITIALIZE_DONT_EXIT: report missing voice data instead of ending the process."""
RATE, PITCH = 1, 3
"""espeak_PARAMETER."""
UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Utterance(NamedTuple):
    """What is said and how."""

    words: str
    voice: str
    """As `en-us+f2`: a language and a variant."""
    words_per_minute: int
    pitch: int
    """0 to 100; 50 is the voice's own."""


def need_espeak() -> None:
    """Raise InputError where espeak-ng is not installed."""
    if find_spec("espeakng_loader") is None:
        raise InputError(Problem("speech", "espeak-ng is not installed.", "Run: pip install 'mmcore[samples]'"))


def speak(utterances: Sequence[Utterance]) -> Generator[NDArray[np.int16], None, None]:
    """One (n,) array of 16-bit samples at SAMPLE_RATE_HZ for each utterance, in order.

    Raises InputError where espeak-ng is missing or fails.
    """
    need_espeak()
    command = [sys.executable, "-m", "mmcore.samples.speech"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        assert child.stderr
        try:
            # The child reads all before it writes anything, so neither waits for the other.
            child.stdin.write(json.dumps(utterances).encode())
            child.stdin.close()
            for utterance in utterances:
                size = child.stdout.read(4)
                if len(size) < 4:
                    said = child.stderr.read().decode(errors="replace").strip().splitlines()
                    raise _broken(f"espeak-ng failed at {utterance} ({said[-1] if said else 'no message'}).")
                yield np.frombuffer(child.stdout.read(int.from_bytes(size, "little")), dtype="<i2")
        except BrokenPipeError:
            raise _broken("espeak-ng did not start.") from None
        finally:
            child.kill()


def _broken(what: str) -> InputError:
    return InputError(Problem("speech", what, "Run: pip install --force-reinstall 'mmcore[samples]'"))


class _Library:
    """espeak-ng through ctypes; one for a process."""

    def __init__(self) -> None:
        import espeakng_loader

        self._espeak = ctypes.CDLL(espeakng_loader.get_library_path())
        self._espeak.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        self._espeak.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
            ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        rate = self._espeak.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), DONT_EXIT)
        if rate != SAMPLE_RATE_HZ:
            raise RuntimeError(f"espeak_Initialize gave {rate}, not {SAMPLE_RATE_HZ}")
        # Left alone, it seeds its noise from the clock.
        self._espeak.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._espeak.espeak_ng_SetRandSeed(1)
        self._chunks: list[bytes] = []
        # Kept as an attribute: the library calls it for as long as it lives.
        self._callback = _CALLBACK(self._receive)
        self._espeak.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, utterance: Utterance) -> bytes:
        if self._espeak.espeak_SetVoiceByName(utterance.voice.encode()):
            raise ValueError(f"no voice {utterance.voice!r}")
        self._espeak.espeak_SetParameter(RATE, utterance.words_per_minute, 0)
        self._espeak.espeak_SetParameter(PITCH, utterance.pitch, 0)
        self._chunks.clear()
        text = utterance.words.encode()
        if self._espeak.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None):
            raise RuntimeError(f"cannot say {utterance.words!r}")
        return b"".join(self._chunks)


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The child: a JSON list of utterances in; for each, its length in bytes (4, little-endian) and samples out."""
    utterances = [Utterance(*one) for one in json.load(requests)]
    library = _Library()
    for utterance in utterances:
        samples = library.say(utterance)
        answers.write(len(samples).to_bytes(4, "little") + samples)
    answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
