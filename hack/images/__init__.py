"""Building the project's images and bringing them to a cluster.

    catalog        which images there are, and what each is made from
    requirements   the pinned dependencies of each image, generated from pyproject.toml
    tags           the tag of an image: a digest of what it is made from
    builders       buildah (on the embedded cluster's storage) or docker
    delivery       into the embedded cluster, or a registry of the user's
    cli            the command line

An image's tag follows from its content, so a manifest that names it can never run stale code, and
an image that exists already is right and need not be built again.
"""
