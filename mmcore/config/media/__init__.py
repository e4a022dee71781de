"""How each kind of media is decoded, checked, normalised and stored: one file per modality."""

from typing import Annotated

from pydantic import Field

from mmcore.config.media.audio import AudioSettings
from mmcore.config.media.image import ImageSettings
from mmcore.config.media.text import TextSettings

ModalitySettings = Annotated[ImageSettings | AudioSettings | TextSettings, Field(discriminator="kind")]

__all__ = ["AudioSettings", "ImageSettings", "ModalitySettings", "TextSettings"]
