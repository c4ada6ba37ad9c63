"""The embedded cluster: a real one-node Kubernetes on a bare Debian machine.

It exists so that developers and CI run the operator against the real API server, scheduler and
kubelet, without access to another cluster and without installing a container runtime first. Everything is built
from Go modules and Debian packages, and kept under one folder (`settings.HOME`).

    settings      names, addresses, versions and folders
    shell         running commands and waiting
    progress      showing that something long is under way
    packages      Debian packages
    golang        Go, the machine's own or one from a Python package
    toolchain     the binaries built from Go modules
    pki           certificates and kubeconfigs
    config        configuration files, rendered from the templates in config/
    network       the bridge that pods are attached to
    processes     starting, recognising and stopping the cluster's own processes
    components    the command line of each process
    store         etcd's data, and whether etcd can still work with it
    volumes       persistent volumes, on folders of the node
    images        the base images, and the delivery of images to the node
    prune         removing images that newer ones have replaced
    lifecycle     up, down and status, put together from the above

Only the standard library is used: the cluster must come up before any Python environment exists.
"""
