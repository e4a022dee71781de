"""How each kind of media is decoded, checked, normalised and stored: one file per modality."""

from typing import Annotated

from pydantic import Field

from mmcore.config.media.audio import AudioSettings
from mmcore.config.media.image import ImageSettings, PixelSettings
from mmcore.config.media.text import TextSettings
from mmcore.config.media.video import VideoSettings

ModalitySettings = Annotated[ImageSettings | AudioSettings | TextSettings | VideoSettings, Field(discriminator="kind")]

__all__ = ["AudioSettings", "ImageSettings", "ModalitySettings", "PixelSettings", "TextSettings", "VideoSettings"]
