"""What networks on log-mel spectrograms share: the spectrograms, and how they are varied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from mmcore.config import LogmelSettings
from mmcore.features.encoders.base import Array
from mmcore.features.encoders.draws import Draws
from mmcore.features.encoders.mel import loudest, mel_edges, power_spectrogram, triangles, warped
from mmcore.features.encoders.network import NetworkEncoder

LOWEST_HZ = 60.0
HIGHEST = 0.95
"""The highest band's end, as a share of half the sample rate: above it resamplers cut."""
DECIBELS_PER_UNIT = 10.0
FAINTEST_DB = -100.0

WARP = 0.15
"""Largest stretch of the frequency axis (natural logarithm): other vocal tracts."""
STRETCH = 0.2
"""Largest stretch in time (natural logarithm): slower and faster speech."""
CUT = 0.08
"""At most this share of a sound is cut off, or added as silence, at either end."""
NOISY = 0.7
"""Share of the sounds that get noise."""
SNR_DB = (0.0, 30.0)
NOISE_SLOPES = (-1.5, 0.5)
"""Exponents of the noise's power over frequency: from brown to bluish."""
EQUALISER_DB = 6.0
EQUALISER_POINTS = 5
"""Standard deviation of the random filter's gain, at so many points along the bands."""
MASKED_BANDS = 0.2
MASKED_FRAMES = 0.15
"""Largest share of bands and frames that are blanked (SpecAugment, Park et al., 2019)."""


class LogmelEncoder(NetworkEncoder):
    """The loudest second in mel bands, in decibels around their mean.

    The level is taken out, and what lies `dynamic_range_db` under the peak counts as silence.
    """

    settings: LogmelSettings
    frames_per_token: ClassVar[int]
    """Spectrogram columns that the network makes one position of."""

    def prepare(self, values: Sequence[Array]) -> list[Tensor]:
        """Samples (n,) of each sound, at most `max_duration_s` of it."""
        length = max(1, round(self.settings.max_duration_s * self.modality["sample_rate_hz"]))
        return [torch.from_numpy(np.array(loudest(value, length), dtype=np.float32)) for value in values]

    def inputs(self, prepared: Sequence[Tensor], rows: Array, draws: Draws | None) -> Tensor:
        """Log-mel spectrograms (b, 1, bands, frames) in units of 10 dB."""
        sounds = [prepared[row].to(self.device) for row in rows]
        return self._front_end()(sounds, draws)

    def sequences(self, prepared: Sequence[Tensor], tokens: Tensor) -> tuple[Tensor, Sequence[int]]:
        """Those of the sound itself, without the silence around it."""
        front, step = self._front_end(), self.frames_per_token
        lengths = front.lengths(prepared)
        first = front.offsets(lengths) // step
        # A token stands for the frames around `step` times its number.
        counts = (-(-(front.offsets(lengths) + lengths) // step)).clamp(max=tokens.shape[1]) - first
        places = (first[:, None] + torch.arange(int(counts.max()))).clamp(max=tokens.shape[1] - 1)
        return rows_of(tokens, places.to(tokens.device)), counts.tolist()

    def _front_end(self) -> _LogMel:
        return _LogMel(self.settings, float(self.modality["sample_rate_hz"]))


class _LogMel:
    def __init__(self, settings: LogmelSettings, rate_hz: float) -> None:
        self.settings, self.rate_hz = settings, rate_hz
        self.window = max(2, round(settings.window_s * rate_hz))
        self.hop = max(1, round(settings.hop_s * rate_hz))
        self.n_fft = 2 ** math.ceil(math.log2(self.window))
        self.frames = 1 + round(settings.max_duration_s * rate_hz) // self.hop

    def lengths(self, sounds: Sequence[Tensor]) -> Tensor:
        """Frames (n,) of each sound."""
        return torch.tensor([1 + len(sound) // self.hop for sound in sounds])

    def offsets(self, lengths: Tensor) -> Tensor:
        """Frames of silence before sounds of so many frames, which stand in the middle."""
        return (self.frames - lengths).div(2, rounding_mode="floor")

    def __call__(self, sounds: Sequence[Tensor], draws: Draws | None) -> Tensor:
        lengths = self.lengths(sounds).to(sounds[0].device)
        power = power_spectrogram(pad_sequence(list(sounds), batch_first=True), self.n_fft, self.window, self.hop)
        limit_hz = HIGHEST * self.rate_hz / 2
        edges = mel_edges(self.settings.mels, min(LOWEST_HZ, limit_hz / 10), limit_hz).to(power.device)
        if draws is None:
            bands = power @ triangles(edges[None], power.shape[2], self.rate_hz)[0]
        else:
            factors = torch.exp(draws.uniform(-WARP, WARP, len(sounds)))
            weights = triangles(warped(edges, factors, self.rate_hz / 2), power.shape[2], self.rate_hz)
            bands = torch.bmm(_with_noise(power, lengths, draws), weights)
        decibels = 10 * torch.log10(bands.clamp(min=10 ** (FAINTEST_DB / 10)))
        placed, inside = self._placed(decibels, lengths, draws)
        peak = torch.where(inside, placed, -math.inf).amax(dim=(1, 2), keepdim=True)
        # Of a sound of a few samples nothing may be left once it is cut.
        peak = peak.clamp(min=FAINTEST_DB)
        silence = peak - self.settings.dynamic_range_db
        placed = torch.maximum(torch.where(inside, placed, silence), silence)
        if draws is not None:
            placed = placed + _equaliser(len(sounds), self.settings.mels, draws)
        frames = inside.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (placed * inside).mean(dim=2, keepdim=True).sum(dim=1, keepdim=True) / frames
        levelled = (placed - mean) / DECIBELS_PER_UNIT
        if draws is not None:
            levelled = _masked(levelled, draws)
        return levelled.transpose(1, 2)[:, None]

    def _placed(self, decibels: Tensor, lengths: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """Bands (n, frames, bands) of sounds of `lengths` frames in the middle of `self.frames`, and where they are.

        With `draws` they are stretched, cut or padded at their ends, and moved as far as there is room.
        """
        n = len(decibels)
        target = torch.arange(self.frames, device=decibels.device, dtype=torch.float32)[None]
        if draws is None:
            source = target - self.offsets(lengths)[:, None]
        else:
            rate = torch.exp(draws.uniform(-STRETCH, STRETCH, n))[:, None]
            begin, end = (lengths * draws.uniform(-CUT, CUT, n) for _ in "be")
            taken = ((lengths - begin - end)[:, None] * rate).clamp(max=self.frames)
            offset = (self.frames - taken) * draws.uniform(0, 1, n)[:, None]
            source = (target - offset) / rate + begin[:, None]
        inside = (source >= 0) & (source <= lengths[:, None] - 1)
        first = source.floor().clamp(0, decibels.shape[1] - 1)
        second = (first + 1).clamp(max=decibels.shape[1] - 1)
        share = (source - first).clamp(0, 1)[..., None]
        values = rows_of(decibels, first) * (1 - share) + rows_of(decibels, second) * share
        return values, inside[..., None]


def rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (n, t) of values (n, frames, bands), sound by sound."""
    return values.gather(1, rows.long()[..., None].expand(-1, -1, values.shape[2]))


def _with_noise(power: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
    """Power (n, frames, bins) plus, for some sounds, that of stationary noise of a random colour."""
    n, _, bins = power.shape
    level = power.sum(dim=(1, 2)) / (lengths * bins)
    ratio = 10 ** (-draws.uniform(*SNR_DB, n) / 10) * (draws.uniform(0, 1, n) < NOISY)
    slope = draws.uniform(*NOISE_SLOPES, n)
    colour = torch.arange(1, bins + 1, device=power.device)[None] ** slope[:, None]
    colour = colour / colour.mean(dim=1, keepdim=True)
    # The power of one bin of Gaussian noise is exponentially distributed.
    noise = -torch.log(draws.uniform(1e-6, 1, *power.shape))
    return power + noise * (colour * (level * ratio)[:, None])[:, None]


def _equaliser(n: int, bands: int, draws: Draws) -> Tensor:
    """Gains (n, 1, bands) in dB of random smooth filters: other microphones and rooms."""
    points = EQUALISER_DB * draws.normal(n, 1, EQUALISER_POINTS)
    return functional.interpolate(points, size=bands, mode="linear", align_corners=True)


def _masked(values: Tensor, draws: Draws) -> Tensor:
    """One stretch of frames and one of bands of each spectrogram (n, frames, bands) set to the mean, 0."""
    n = len(values)
    for axis, share in ((1, MASKED_FRAMES), (2, MASKED_BANDS)):
        size = values.shape[axis]
        width = draws.uniform(0, share * size, n)[:, None]
        start = draws.uniform(0, 1, n)[:, None] * (size - width)
        place = torch.arange(size, device=values.device)[None]
        hidden = (place >= start) & (place < start + width)
        values = values.masked_fill(hidden.unsqueeze(3 - axis), 0.0)
    return values
