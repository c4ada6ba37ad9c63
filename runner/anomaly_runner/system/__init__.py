"""The process and the machine it runs on: memory, CPUs, scratch files, signals, logs. Knows nothing of runs."""
