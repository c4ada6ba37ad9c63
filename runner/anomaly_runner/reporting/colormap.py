"""Google's Turbo colours for heat maps, as a palette for Pillow.

Polynomial approximation by Mikhailov, "Turbo, An Improved Rainbow Colormap for Visualization", 2019 (Apache-2.0).
"""

import numpy as np

_RED = (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943)
_GREEN = (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604)
_BLUE = (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973)


def turbo_palette() -> bytes:
    """256 RGB triples as bytes, from dark blue through green to dark red."""
    level = np.linspace(0, 1, 256)
    powers = level[:, None] ** np.arange(6)
    channels = powers @ np.array([_RED, _GREEN, _BLUE]).T
    return bytes((np.clip(channels, 0, 1) * 255).round().astype(np.uint8).tobytes())


TURBO = turbo_palette()
"""The palette, for ``Image.putpalette``."""
