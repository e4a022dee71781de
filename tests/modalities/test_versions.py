"""Guards `version` of the settings: other members for equal settings and input need a higher version.

What is hashed is what a member holds, not how a codec's release happens to pack it.
Where a change is wanted: raise `version` in mmcore/config/media/, and put the new hash here.
"""

import hashlib
import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmcore.config import AudioSettings, ImageSettings, TextSettings


def a_picture():
    y, x = np.mgrid[0:40, 0:70]
    rgba = np.stack([x * 3, y * 6, (x + y) % 200, 255 - (x * y) % 256], axis=2).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "PNG")
    return out.getvalue()


def a_sound():
    out = io.BytesIO()
    wave = (np.arange(9000 * 2).reshape(-1, 2) * 37 % 4001 - 2000).astype(np.int16)
    soundfile.write(out, wave, 8000, format="WAV")
    return out.getvalue()


A_TEXT = "\ufeff  Cafe\u0301 \u202enoir\u202c\r\n\x07zwei\x0c👩\u200d👧\t7  ".encode()


@pytest.mark.parametrize(
    ("settings", "data", "version", "expected"),
    [
        (ImageSettings(column="x", size=32), a_picture(), 4, "9897562ef58a0f54"),
        (ImageSettings(column="x", size=32, resize="crop", mode="grey"), a_picture(), 4, "08253c63bb79da2a"),
        (AudioSettings(column="x", sample_rate_hz=8000, max_duration_s=1), a_sound(), 3, "509c6279cedd7e13"),
        (TextSettings(column="x", max_chars=20), A_TEXT, 2, "1e0c0617c034b2a9"),
    ],
    ids=["image-pad", "image-crop-grey", "audio", "text"],
)
def test_members_hold_what_their_version_says(settings, data, version, expected):
    modality = settings.load()(settings)
    member = modality.process(data)
    value = modality.load(member.data)
    held = value.encode() if isinstance(value, str) else repr(value.shape).encode() + value.tobytes()
    facts = repr(sorted(member.facts.items())).encode()
    assert settings.version == version
    assert hashlib.sha256(held + facts).hexdigest()[:16] == expected
