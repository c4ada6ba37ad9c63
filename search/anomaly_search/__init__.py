"""From a search space and past trials to the next one: pure functions, built on Optuna.

    memo         what earlier calls computed, for as long as its sources are the same objects
    space        parameters: choices and ranges, some under a condition
    points       points of a space: how many, the i-th, from the unit cube and back
    trials       what is known of one run of one point
    sweep        what is searched for, how, and within which limits
    evaluations  the runs of a point at one fidelity, folded into one value with its standard error
    racing       whether the further replicates of a point can be saved
    prune        whether a running trial is stopped for its curve
    ranking      when the best got better
    leaders      which points are the best
    promotion    which points go on to the next fidelity
    stopping     when a sweep ends, and why
    schedule     what to start and to stop next, or that the sweep is over
    samplers     Optuna's TPE and random, Sobol, CMA-ES, each from nothing but its arguments
    suggest      the point of a number
    summary      what a status and a report say of a sweep
    spec         the same from the contract's types, and the summary as a status
    session      all of it for the programs: from the spec and plain records of trials to what is to be done

Nothing here keeps state, reads a clock or draws from a global generator: the same arguments give the same answer in
any process. A memo, which callers may keep, saves time and changes no answer. Kubernetes, kopf and torch are unknown
here.
"""
