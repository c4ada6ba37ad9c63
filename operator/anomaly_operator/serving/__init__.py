"""What the operator serves: progress that pods push, metrics and probes."""
