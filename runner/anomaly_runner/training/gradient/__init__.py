"""Training by gradient: anomalib's modules under a plain Lightning Trainer, on this runner's own data and metrics.

``training_plan`` decides what will be done, ``fit`` does it with the ``callbacks`` and ``checkpoints``; ``workers``,
``worker`` and ``ddp`` are for trainings on several devices. Nothing here knows of Kubernetes, of the run's report, or
of the stages after training.
"""
