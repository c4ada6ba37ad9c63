"""Training by gradient: anomalib's modules under a plain Lightning Trainer, on this runner's own data and metrics."""
