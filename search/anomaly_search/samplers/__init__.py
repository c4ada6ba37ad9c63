"""How points are found: each algorithm from nothing but its arguments.

    seeding           the seed of one suggestion
    rows              evaluations as Optuna's trials
    storage           a read-only storage over them
    optuna_samplers   Optuna's own TPE and random
    sobol             Sobol's sequence, by index
    cma_es            CMA-ES, replayed
    grid              the points of a finite space, in their order

Optuna's samplers for the last three cannot be made anew for each suggestion: they keep their index, their distribution
or their grid in attributes of the study, and repeat their first point without them.
"""
