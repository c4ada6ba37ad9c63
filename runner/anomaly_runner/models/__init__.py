"""The models: the catalog of all models, and how each is checked, built and wrapped for scoring.

``catalog`` is the table of all models. PaDiM and PatchCore are implemented here, on timm (``padim``, ``patchcore``,
``memory_models``), with the algorithms and constants of anomalib; the tests compare the scores of both implementations
image by image. anomalib itself is avoided for these two because importing anything below ``anomalib.models`` imports
all of its models and Lightning, which costs 12 s and 0.5 GB. All other models are anomalib's own networks
(``anomalib_model``), some with a forward pass that can be exported (``traceable``).

Nothing here trains by gradient, reads images or writes exports. Inference from an exported model needs none of it.
"""
