"""The models: which there are, how each is checked, built and brought to one form for scoring.

``catalog`` is the table of all of them. PaDiM and PatchCore are written out here, over timm (``padim``, ``patchcore``,
``memory_models``): the algorithms and every number are anomalib's, and the tests compare scores of both image by image,
but importing anything below ``anomalib.models`` imports all of its models and Lightning: 12 s of start and 0.5 GB that
no run needs. All others are anomalib's own networks (``anomalib_model``), some with a forward pass that can be exported
(``traceable``).

Nothing here trains by gradient, reads images or writes exports. Inference from an exported model needs none of it.
"""
