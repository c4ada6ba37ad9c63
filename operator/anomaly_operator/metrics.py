"""The operator's Prometheus metrics, all in one registry.

Metrics only count and time; nothing in the operator reads them to decide something.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

RECONCILE_SECONDS = Histogram(
    "anomaly_operator_reconcile_seconds",
    "Time of one reconcile.",
    ["kind"],
    registry=REGISTRY,
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
RECONCILE_ERRORS = Counter(
    "anomaly_operator_reconcile_errors_total",
    "Reconciles that failed and are tried again.",
    ["error"],
    registry=REGISTRY,
)
QUEUE_SECONDS = Histogram(
    "anomaly_operator_queue_seconds",
    "Time from a run's first change to the start of its reconcile.",
    registry=REGISTRY,
    buckets=(0.001, 0.01, 0.1, 1, 10, 100),
)
QUEUE_DEPTH = Gauge("anomaly_operator_queue_depth", "Runs that wait to be reconciled.", registry=REGISTRY)
RUNS = Gauge("anomaly_operator_runs", "Runs by phase.", ["kind", "phase"], registry=REGISTRY)
_SWEEP = ["namespace", "sweep"]
TRIALS = Gauge("anomaly_operator_sweep_trials", "Points of a sweep by state.", [*_SWEEP, "state"], registry=REGISTRY)
BEST_VALUE = Gauge(
    "anomaly_operator_sweep_best", "Value of a sweep's best trial.", [*_SWEEP, "metric"], registry=REGISTRY
)
GPU_HOURS = Gauge("anomaly_operator_sweep_gpu_hours", "GPU-hours that a sweep used.", _SWEEP, registry=REGISTRY)
SEARCH_SECONDS = Histogram(
    "anomaly_operator_search_seconds",
    "Time in which the search answers what a sweep is to do next, with its wait for other sweeps' answers.",
    registry=REGISTRY,
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
SEARCH_SUGGESTIONS = Counter(
    "anomaly_operator_search_suggestions_total", "Trials that the search suggested.", registry=REGISTRY
)
API_REQUESTS = Counter(
    "anomaly_operator_api_requests_total",
    "Requests to the API server, without kopf's watches.",
    ["verb", "resource", "code"],
    registry=REGISTRY,
)
LEADER = Gauge("anomaly_operator_leader", "1 when this replica acts.", registry=REGISTRY)
RESYNC_AGE = Gauge("anomaly_operator_resync_age_seconds", "Seconds since the last complete LIST.", registry=REGISTRY)
PROGRESS_PUSHES = Counter("anomaly_operator_progress_total", "Progress pushed by pods.", ["result"], registry=REGISTRY)
