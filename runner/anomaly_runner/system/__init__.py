"""The process and its machine: memory, CPUs, scratch files, signals and logs. Knows nothing of runs."""
