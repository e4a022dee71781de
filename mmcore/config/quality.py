"""How duplicates are looked for, and what happens to them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmcore.config.base import Part


class DuplicatesConfig(Part):
    """What counts as the same sample twice. Duplicates are found and shown; by default none is removed."""

    exact: bool = True
    """Equal bytes, as they came or as they are stored."""
    near: bool = True
    """Alike by the modality's signature: a picture saved again, a text with a few words changed."""
    modalities: list[str] | None = None
    """Look at these only (all when not given): one that repeats by design, such as a label's name, tells nothing."""
    image_bits: int = Field(4, ge=0, le=10)
    """Most bits, of 64, in which the hashes of two near-duplicate pictures differ."""
    image_likeness: float = Field(0.98, ge=0, le=1)
    """Least likeness (cosine of their coarse shapes) that pictures of so near hashes have too. Where one has fewer than
    64 pixels a side, they may differ by .4 of what this allows, or all handwritten sevens would be one."""
    audio_share: float = Field(0.15, ge=0, le=0.3)
    """Largest share of bits in which the signatures of two near-duplicate sounds differ."""
    text_jaccard: float = Field(0.85, ge=0.7, le=1)
    """Least overlap (Jaccard index) of the five-character runs of two near-duplicate texts."""
    remove: Literal["none", "across-splits", "all"] = "none"
    """`across-splits`: leave out of train what val or test has too; `all`: also all but the first within train.

    val and test always stay as they are.
    """

    def finding(self) -> dict[str, object]:
        """What of these settings decides which duplicates are found, as JSON."""
        return self.model_dump(mode="json", exclude={"remove"})
