"""The knobs of a model of images."""

import dataclasses
from typing import ClassVar, Literal

from transformer_jax.config.model import LayersConfig, PerhapsAttention
from transformer_jax.config.schema import MOST_CLASSES, WIDEST, knob


@dataclasses.dataclass(frozen=True)
class VisionConfig(PerhapsAttention, LayersConfig):
    """An encoder over the patches of an image (Dosovitskiy et al. 2021, "ViT"), or a convolution over their grid."""

    from_data: ClassVar[tuple[str, ...]] = ("num_classes", "image_height", "image_width", "image_channels")
    reads: ClassVar[tuple[str, ...]] = ("images",)
    lengths: ClassVar[str] = "the image, model.patch_size and model.pooling"
    axes: ClassVar[int] = 2

    family: Literal["vision"] = knob("vision", "which file of models/ builds it; set by the config file")
    num_classes: int | None = knob(None, "C; unset: from the data", low=2, high=MOST_CLASSES)
    image_height: int | None = knob(None, "pixels; unset: from the data", low=1, high=WIDEST)
    image_width: int | None = knob(None, "pixels; unset: from the data", low=1, high=WIDEST)
    image_channels: int | None = knob(None, "1: grey, 3: colours; unset: from the data", low=1, high=1024)
    patch_size: int = knob(16, "height and width of a patch in pixels (ViT, Section 3.1)", low=1, high=WIDEST)
    pooling: Literal["class_token", "mean"] = knob(
        "class_token", "what is classified: a token of its own (ViT, Section 3.1), or the mean of the patches"
    )
    mixing: str = knob("attention", "what passes between patches; slot MIXINGS")
    num_layers: int = knob(6, "N (Section 3.1)", low=1, high=1000)

    @property
    def places(self) -> tuple[str, ...]:  # type: ignore[override]
        """None where no attention mixes the patches."""
        return ("encoder",) if self.mixing == "attention" else ()

    @property
    def depths(self) -> dict[str, int]:
        return dict.fromkeys(self.places, self.num_layers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, once the size of an image is known."""
        assert self.image_height is not None
        assert self.image_width is not None
        return self.image_height // self.patch_size, self.image_width // self.patch_size

    def longest(self, max_length: int, max_extra_length: int) -> int:
        """Patches, and the class token; 0 where the size of an image is not known yet."""
        if self.image_height is None or self.image_width is None:
            return 0
        rows, columns = self.grid
        return rows * columns + (self.pooling == "class_token")
