"""What is done to an image between its file and the model."""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import Fraction, PixelSize


class InputSize(Contract):
    """Size of the model's input in pixels."""

    height: PixelSize = 256
    """Rows."""
    width: PixelSize = 256
    """Columns."""


class Augmentations(Contract):
    """Random changes of training images; never of test images."""

    horizontal_flip: Fraction = 0.0
    """Probability of a left-right flip."""
    vertical_flip: Fraction = 0.0
    """Probability of an upside-down flip."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation in either direction, degrees."""
    brightness: Fraction = 0.0
    """Largest relative change of brightness."""
    contrast: Fraction = 0.0
    """Largest relative change of contrast."""


class Transforms(Contract):
    """Resize and normalise."""

    input_size: InputSize = InputSize()
    """Every image is resized to this size (bilinear, antialiased), independently of the others in its batch."""
    normalization: Literal["imagenet", "none"] | None = None
    """imagenet: subtract the channel means (0.485, 0.456, 0.406) and divide by (0.229, 0.224, 0.225), after
    scaling to 0..1; none: only scale to 0..1. Unset means what the model needs, which is imagenet for most."""
    bit_depth: Annotated[int, Field(ge=8, le=16)] | None = None
    """Significant bits of grey images stored with 16: a 12-bit camera's white is 4095, not 65535. Unset means the
    file's own depth: 16, except for PGM and JPEG 2000, which state theirs, and TIFF files with 10, 12 or 14 bits per
    pixel. Higher values are refused."""
    augmentations: Augmentations | None = None
    """Random changes while training."""
