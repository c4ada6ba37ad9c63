"""Building the project's images and bringing them to a cluster.

    catalog        which images there are, and what each is made from
    requirements   the pinned dependencies of each image, generated from pyproject.toml
    tags           the tag of an image: a digest of what it is made from
    builders       buildah (on the embedded cluster's storage) or docker
    delivery       delivery to the embedded cluster, or to a registry of the user
    cli            the command line

An image's tag is a digest of its inputs, so a manifest that names it never runs stale code, and an
image that exists already need not be built again.
"""
