"""A text modality that dies or hangs on certain words, as codecs do, and the job that uses it."""

from __future__ import annotations

import ctypes
import os
import signal

from mmcore.config import TextSettings
from mmcore.modalities.base import Rejected
from mmcore.modalities.text import TextModality
from mmcore.shards import write
from mmcore.shards.recipe import ShardJob


class BadText(TextModality):
    def decode(self, data: bytes) -> str | Rejected:
        if data == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if data == b"hang":
            ctypes.PyDLL(None).sleep(1000)  # keeps the interpreter's lock
        if data == b"memory":
            raise MemoryError
        if data == b"bug":
            raise RuntimeError("a bug")
        return super().decode(data)


def make_shard(job: ShardJob):
    TextSettings.implementation = "tests.shards.bad_codec:BadText"
    try:
        return write.make_shard(job)
    finally:
        TextSettings.implementation = "mmcore.modalities.text:TextModality"
