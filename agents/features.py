"""Feature extractors: what turns one observation into the vector that the memory core reads."""

from __future__ import annotations

import functools
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from torch import Tensor, nn

from ..common.imports import imported
from ..common.options import Import
from ..envs.last import LAST_ACTION, LAST_REWARD, OBSERVATION
from .block_conv import BlockConv2d


class ConvFeatures(BaseFeaturesExtractor):
    """A convolutional stack over channel-first images, run in the channels-last memory format.

    Each image is first brought to zero mean and unit variance. In most games nearly all of an image is background;
    what moves would otherwise be a small disturbance of large constant features, and a recurrent core driven by those
    saturates before it learns anything. This and all else that depends on no weight is in ``prepare``, so that trainers
    do it once, however often they learn from an image.

    :param observation_space: image space [C, H, W]
    :param convolutions: over images as ``resize`` leaves them, each followed by a rectifier
    :param pool: whether the maximum is taken of every 2x2 pixels after each of them
    :param hidden_size: width of a fully connected layer after them; None: there is none
    :param flatten: what makes a vector of the maps [B, C', H', W']
    :raises ValueError: if the images are too small for the convolutions
    """

    side: int | None = None  # in pixels, of the square that images are resized to

    def __init__(
        self,
        observation_space: spaces.Box,
        convolutions: list[nn.Conv2d],
        pool: bool = False,
        hidden_size: int | None = None,
        flatten: type[nn.Module] = nn.Flatten,
    ) -> None:
        super().__init__(observation_space, features_dim=1)
        self.observation_space = observation_space
        self.stack = nn.Sequential()
        for convolution in convolutions:
            self.stack.extend([convolution, *([nn.MaxPool2d(2)] if pool else []), nn.ReLU(inplace=True)])
        self.stack.append(flatten())
        try:
            with torch.no_grad():
                self._features_dim = self(torch.zeros(1, *observation_space.shape)).shape[1]
        except RuntimeError as error:
            raise ValueError(
                f"images of shape {observation_space.shape} are too small for these features: 'small' and 'a3c' "
                "resize them, 'mlp' takes any observation"
            ) from error
        if hidden_size is not None:
            self.stack.extend([nn.Linear(self._features_dim, hidden_size), nn.ReLU(inplace=True)])
            self._features_dim = hidden_size

    @property
    def pixels(self) -> int:
        """Numbers in what ``prepare`` makes of an image: C x H' x W'."""
        channels, height, width = self.observation_space.shape
        return channels * (height * width if self.side is None else self.side**2)

    def resize(self, images: Tensor) -> Tensor:
        """Bring images [B, C, H, W], bytes or floats, to the size that the convolutions expect."""
        if self.side is None:
            return images
        return F.adaptive_avg_pool2d(images.float() / 255 if images.dtype == torch.uint8 else images, self.side)

    def prepare(self, images: Tensor) -> Tensor:
        """All that is done to images [B, C, H, W], bytes or floats, without weights -> [B, H', W', C']."""
        first = self.stack[0]
        images = self.resize(images)
        images = standardize(images).to(computed_in(images))
        if isinstance(first, BlockConv2d):
            images = first.prepare(images)
        return images.permute(0, 2, 3, 1).contiguous()

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W], or what ``prepare`` made of them [B, H', W', C'] -> features [B, F]."""
        if images.shape[1:] == self.observation_space.shape:
            images = self.prepare(images)
        return self.stack(images.permute(0, 3, 1, 2))  # seen by the convolutions as channels last


class FlattenChannelsLast(nn.Module):
    """Maps [B, C, H, W] -> [B, H * W * C], which for maps that lie channels last in memory moves nothing, neither
    forward nor backward."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


def standardize(images: Tensor) -> Tensor:
    """Images [B, C, H, W], each brought to zero mean and unit variance; a blank image to zeros.

    :param images: floats, or bytes, which give the same as floats in [0, 1]
    """
    unit = 1.0
    if images.dtype == torch.uint8:
        # Unscaled, since bfloat16 holds whole numbers up to 256 exactly: what it is standardised from is not rounded.
        images, unit = images.to(computed_in(images)), 255.0
    return F.layer_norm(images, images.shape[1:], eps=1e-6 * unit**2)


def computed_in(images: Tensor) -> torch.dtype:
    """The dtype that convolutions compute in: that of autocast, else that of the images, or float32 for bytes."""
    device = images.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return images.dtype if images.is_floating_point() else torch.float32


def image_channels(observation_space: spaces.Space) -> int:
    """C of observations [C, H, W].

    :raises ValueError: if the observations are no images
    """
    shape = observation_space.shape or ()
    if len(shape) != 3:
        raise ValueError(f"convolutional features need image observations [C, H, W], got {observation_space}")
    if shape[2] in (1, 3, 4) and shape[2] < min(shape[:2]):
        raise ValueError(
            f"convolutional features need images with channels first, [C, H, W], got {observation_space}: "
            "transpose them in the environment, or choose features 'mlp'"
        )
    return shape[0]


class NatureFeatures(ConvFeatures):
    """The three-layer stack of Mnih et al. (2015): 84x84 -> 512 features."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 512) -> None:
        C = image_channels(observation_space)
        convolutions = [BlockConv2d(C, 32, stride=4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3)]
        super().__init__(observation_space, convolutions, hidden_size=features_dim)


class AtariFeatures(ConvFeatures):
    """The two-layer stack of Mnih et al. (2013), which A3C has too (2016): 84x84 -> 256 features. On a CPU, it takes a
    third of the time of ``nature``."""

    def __init__(self, observation_space: spaces.Box) -> None:
        convolutions = [BlockConv2d(image_channels(observation_space), 16, stride=4), nn.Conv2d(16, 32, 4, 2)]
        super().__init__(observation_space, convolutions, hidden_size=256, flatten=FlattenChannelsLast)


class SmallFeatures(ConvFeatures):
    """Four 3x3 convolutions of stride 2 over 42x42 images -> 288 features."""

    side = 42

    def __init__(self, observation_space: spaces.Box) -> None:
        channels = (image_channels(observation_space), 32, 32, 32)
        super().__init__(observation_space, [nn.Conv2d(c, 32, 3, stride=2, padding=1) for c in channels])


class A3CFeatures(ConvFeatures):
    """The four-layer stack of the released STM agent: 80x80 -> 1024 features.

    Native Atari frames (210x160) are cropped to rows 34 to 193, the field of play, and halved; other sizes are
    resized by area. (The released agent normalised by running averages of mean and variance with a decay of 0.9999; in
    Pong they hardly differ from one frame to the next, and without them the extractor stays a pure function.)
    """

    side = 80

    def __init__(self, observation_space: spaces.Box) -> None:
        convolutions = [
            nn.Conv2d(image_channels(observation_space), 32, 5, padding=2),
            nn.Conv2d(32, 32, 5, padding=1),
            nn.Conv2d(32, 64, 4, padding=1),
            nn.Conv2d(64, 64, 3, padding=1),
        ]
        super().__init__(observation_space, convolutions, pool=True)

    def resize(self, images: Tensor) -> Tensor:
        if images.shape[-2:] == (210, 160):
            images = images[..., 34:194, :]
        return super().resize(images)


class MlpFeatures(BaseFeaturesExtractor):
    """Two tanh layers over flat observations.

    :param hidden_size: width of both layers
    """

    def __init__(self, observation_space: spaces.Space, hidden_size: int = 64) -> None:
        super().__init__(observation_space, hidden_size)
        self.stack = nn.Sequential(
            nn.Flatten(),
            nn.Linear(get_flattened_obs_dim(observation_space), hidden_size),
            nn.Tanh(),
            nn.Linear(hidden_size, hidden_size),
            nn.Tanh(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        return self.stack(observations)  # [B, ...] -> [B, F]


class FeaturesAndLast(BaseFeaturesExtractor):
    """Features of what is observed, beside them the last action and the last reward, as
    ``relmem.envs.LastActionReward`` shows them.

    :param observation_space: with ``last_action``, ``last_reward`` or both
    :param features: name of the extractor of the rest; None: the one that goes with it
    """

    def __init__(self, observation_space: spaces.Dict, features: FeaturesName | Import | None = None) -> None:
        self.last = last_parts(observation_space)
        rest = {name: space for name, space in observation_space.spaces.items() if name not in self.last}
        self.in_parts = rest.keys() != {OBSERVATION}
        space = spaces.Dict(rest) if self.in_parts else rest[OBSERVATION]
        of: BaseFeaturesExtractor = features_class(features, space)(space)
        shown = sum(get_flattened_obs_dim(observation_space[name]) for name in self.last)
        super().__init__(observation_space, of.features_dim + shown)
        self.of = of

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        rest: Any = observations if self.in_parts else observations[OBSERVATION]
        last = [observations[name].flatten(1) for name in self.last]
        return torch.cat([self.of(rest), *last], dim=1)  # [B, F + A + 1], where both are shown


def last_parts(space: spaces.Space) -> list[str]:
    """Names of the parts of observations that show the last action and the last reward; none, where there is nothing
    else to see."""
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    last = [name for name in (LAST_ACTION, LAST_REWARD) if isinstance(parts.get(name), spaces.Box)]
    return last if len(last) < len(parts) else []


def convolutions(extractor: nn.Module) -> ConvFeatures | None:
    """What reads the images, of an extractor of images, with or without last action and reward; None for others."""
    of = extractor.of if isinstance(extractor, FeaturesAndLast) else extractor
    return of if isinstance(of, ConvFeatures) else None


SMALLEST_IN_DICT = 36  # for the NatureCNN that SB3's CombinedExtractor gives to each image

FeaturesName = Literal["nature", "atari", "a3c", "small", "mlp", "dict"]
FEATURES: dict[FeaturesName, type[BaseFeaturesExtractor]] = {
    "nature": NatureFeatures,
    "atari": AtariFeatures,
    "a3c": A3CFeatures,
    "small": SmallFeatures,
    "mlp": MlpFeatures,
    "dict": CombinedExtractor,
}


def _looks_like_images(space: spaces.Space) -> bool:
    """Whether a box has two sides as long as a picture's, of whatever numbers, if it has three dimensions; of bytes, if
    it has others, since tables of numbers come in two."""
    if not isinstance(space, spaces.Box) or sum(side >= SMALLEST_IN_DICT for side in space.shape) < 2:
        return False
    return len(space.shape) == 3 or space.dtype == np.uint8


def features_class(name: FeaturesName | Import | None, observation_space: spaces.Space) -> Any:
    """The extractor of that name or in that module; None: ``nature`` for images, ``dict`` for dictionaries, ``mlp`` for
    the rest. Where observations show the last action or reward, it is that of the rest of them.

    :raises ValueError: if it is one for another kind of observations, or a module holds no such extractor; without a
        name, if observations look like images but are none that the default extractors read
    """
    parts = dict(observation_space.spaces) if isinstance(observation_space, spaces.Dict) else None
    if last_parts(observation_space):
        return functools.partial(FeaturesAndLast, features=name)
    if name is not None and ":" in name:
        own = imported(name, "features")
        if not (isinstance(own, type) and issubclass(own, BaseFeaturesExtractor)):
            raise ValueError(f"features '{name}' must be a class derived from SB3's BaseFeaturesExtractor, got {own!r}")
        return own
    if name is not None and (parts is None) == (name == "dict"):
        raise ValueError(f"features '{name}' do not fit the observations {observation_space}")
    for key, space in (parts or {}).items():
        if name is None and _looks_like_images(space) and not is_image_space(space):
            raise ValueError(
                f"'{key}', {space}, looks like images, but features 'dict' know only bytes 0 to 255 in three "
                "dimensions: convert it in the environment, or choose features 'dict' to have it flattened"
            )
        if is_image_space(space) and min(space.shape[-2:]) < SMALLEST_IN_DICT:  # type: ignore[index]
            raise ValueError(
                f"images '{key}' of shape {space.shape} are too small for features 'dict', whose convolutions need "
                f"sides of {SMALLEST_IN_DICT}: flatten or enlarge them in the environment"
            )
    if name is None:
        images = is_image_space(observation_space) or _looks_like_images(observation_space)
        if images and len(observation_space.shape or ()) != 3:
            raise ValueError(
                f"{observation_space} looks like images, which have three dimensions, [C, H, W] or [H, W, C]: reshape "
                "them in the environment, or choose features 'mlp'"
            )
        name = "dict" if parts is not None else "nature" if images else "mlp"
    return FEATURES[cast(FeaturesName, name)]
