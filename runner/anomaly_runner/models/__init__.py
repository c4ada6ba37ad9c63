"""Models that learn what good looks like in one pass over the training images.

The algorithms and every number are anomalib's (``anomalib.models.image.padim`` and ``.patchcore``); the tests
hold scores of both together, image by image. They are written out here, over timm, because importing anything
below ``anomalib.models`` imports all of its models and Lightning: 12 s of start and 0.5 GB that no run needs.
Nothing below this package is imported by inference.
"""
