"""The operator's HTTP server: progress that pods push, probes and metrics. Writes nothing to the cluster."""
