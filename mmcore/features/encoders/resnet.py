"""A small residual network on images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mmcore.config import ResnetSettings
from mmcore.features.encoders.cnn import POOLED, SMALLEST_MAP, STEM_LIMIT
from mmcore.features.encoders.image_network import ImageNetworkEncoder
from mmcore.features.encoders.layers import Head, Outputs, convolution


class ResnetEncoder(ImageNetworkEncoder):
    """Stages of residual blocks (He, Zhang, Ren and Sun, 2016: Deep Residual Learning), each halving the maps."""

    settings: ResnetSettings

    def build(self) -> nn.Module:
        return _ResidualNetwork(self.size, self.channels, self.settings, len(self.classes))


class _ResidualNetwork(nn.Module):
    def __init__(self, size: int, channels: int, settings: ResnetSettings, classes: int) -> None:
        super().__init__()
        width, side = settings.width, size
        stride = 2 if side > STEM_LIMIT else 1
        layers: list[nn.Module] = convolution(channels, width, stride=stride)
        side = -(-side // stride)
        halved = False
        while side > SMALLEST_MAP or not halved:
            wider, stride, halved = min(2 * width, 4 * settings.width), 2 if side > SMALLEST_MAP else 1, True
            layers += [_Block(width, wider, stride), *(_Block(wider, wider) for _ in range(settings.blocks - 1))]
            width, side = wider, -(-side // stride)
        self.maps = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(min(POOLED, side))
        self.head = Head(width * min(POOLED, side) ** 2, settings, classes)
        self.token_dim = width

    def forward(self, images: Tensor) -> Outputs:
        maps = self.maps(images)
        outputs: Outputs = self.head(self.pool(maps).flatten(1), maps.flatten(2).transpose(1, 2))
        return outputs


class _Block(nn.Module):
    """Two 3x3 convolutions, and a way past them: the input itself, or a 1x1 convolution where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *convolution(inputs, outputs, stride=stride), *convolution(outputs, outputs, relu=False)
        )
        same = inputs == outputs and stride == 1
        past = [] if same else convolution(inputs, outputs, side=1, stride=stride, relu=False)
        self.past = nn.Sequential(*past)

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(self.layers(maps) + self.past(maps))
