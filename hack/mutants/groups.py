"""Which modules are changed, and which tests have to notice it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("crds/anomaly_api", "search/anomaly_search", "operator/anomaly_operator", "runner/anomaly_runner")


@dataclass(frozen=True)
class Group:
    """Modules that the same tests hold."""

    name: str
    modules: tuple[str, ...]
    """Files in the folder of the packages, with wildcards."""
    tests: tuple[str, ...]
    """Arguments of pytest: the tests of these modules, those that take seconds alone. All of them run once."""

    @property
    def folder(self) -> Path:
        """Where mutmut works, and keeps what it has found."""
        return ROOT / "build" / "mutants" / self.name

    def names(self) -> list[str]:
        """Return the names of the modules, in their order."""
        sources = [(ROOT / package).parent for package in PACKAGES]
        files = (
            file.relative_to(source) for source in sources for module in self.modules for file in source.glob(module)
        )
        return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in sorted(files)]


GROUPS = (
    Group(
        "operator",
        ("anomaly_operator/decide/*.py", "anomaly_operator/work_queue.py", "anomaly_operator/names.py"),
        (
            "tests/unit/operator",
            "--ignore=tests/unit/operator/test_search_process.py",
            "--ignore=tests/unit/operator/test_runs_stateful.py",
        ),
    ),
    Group(
        "cluster",
        (
            "anomaly_operator/cluster/apply.py",
            "anomaly_operator/cluster/cache.py",
            "anomaly_operator/cluster/client.py",
            "anomaly_operator/cluster/credentials.py",
            "anomaly_operator/cluster/event_recorder.py",
            "anomaly_operator/cluster/leader_election.py",
            "anomaly_operator/cluster/resync.py",
            "anomaly_operator/cluster/watchable.py",
            "anomaly_operator/controller.py",
            "anomaly_operator/manager.py",
            "anomaly_operator/observer.py",
            "anomaly_operator/pruner.py",
            "anomaly_operator/reconciler.py",
            "anomaly_operator/replica.py",
            "anomaly_operator/search_worker.py",
            "anomaly_operator/serving/progress_board.py",
            "anomaly_operator/serving/server.py",
            "anomaly_operator/serving/tokens.py",
            "anomaly_operator/settings.py",
            "anomaly_operator/status_writer.py",
            "anomaly_operator/sweeper.py",
            "anomaly_operator/views.py",
        ),
        (
            "tests/unit/operator/test_apply.py",
            "tests/unit/operator/test_cache.py",
            "tests/unit/operator/test_client.py",
            "tests/unit/operator/test_credentials.py",
            "tests/unit/operator/test_event_recorder.py",
            "tests/unit/operator/test_lease.py",
            "tests/unit/operator/test_manager.py",
            "tests/unit/operator/test_observer.py",
            "tests/unit/operator/test_progress.py",
            "tests/unit/operator/test_pruner.py",
            "tests/unit/operator/test_reconciler.py",
            "tests/unit/operator/test_replica.py",
            "tests/unit/operator/test_resync.py",
            "tests/unit/operator/test_search_worker.py",
            "tests/unit/operator/test_settings.py",
            "tests/unit/operator/test_status_writer.py",
            "tests/unit/operator/test_sweeper.py",
            "tests/unit/operator/test_views.py",
            "tests/unit/operator/test_watchable.py",
        ),
    ),
    Group("contract", ("anomaly_api/*.py",), ("tests/unit/contract",)),
    Group(
        "search",
        ("anomaly_search/*.py", "anomaly_search/samplers/*.py"),
        (
            "tests/unit/search",
            "--ignore=tests/unit/search/test_measured_grid.py",
            "--ignore=tests/unit/search/test_schedule_stateful.py",
            "--deselect=tests/unit/search/test_memo.py::test_every_answer_is_that_without_a_memo",
            "--deselect=tests/unit/search/test_suggest.py::test_a_suggestion_is_the_same_in_any_process_and_light",
        ),
    ),
    Group(
        "evaluation",
        ("anomaly_runner/evaluation/*.py", "anomaly_runner/scoring/predict.py"),
        (
            "tests/unit/runner/test_curves.py",
            "tests/unit/runner/test_data_edges.py",
            "tests/unit/runner/test_evaluate.py",
            "tests/unit/runner/test_evaluation_by_hand.py",
            "tests/unit/runner/test_good_scores.py",
            "tests/unit/runner/test_metric_edges.py",
            "tests/unit/runner/test_predict.py",
            "tests/unit/runner/test_regions.py",
            "tests/unit/runner/test_threshold_goals.py",
            "tests/unit/runner/test_visualize.py",
        ),
    ),
    Group(
        "data",
        ("anomaly_runner/data/*.py", "anomaly_runner/data/layouts/*.py"),
        (
            "tests/component/test_decoded_cache.py",
            "--deselect=tests/component/test_decoded_cache.py::test_processes_write_one_cache_at_the_same_time",
            "tests/unit/runner/test_augment.py",
            "tests/unit/runner/test_batches.py",
            "tests/unit/runner/test_data_edges.py",
            "tests/unit/runner/test_equal_images.py",
            "tests/unit/runner/test_evaluate.py",
            "tests/unit/runner/test_fetch.py",
            "tests/unit/runner/test_folder_layout.py",
            "tests/unit/runner/test_fraction.py",
            "tests/unit/runner/test_image_files.py",
            "tests/unit/runner/test_images.py",
            "tests/unit/runner/test_layouts.py",
            "tests/unit/runner/test_mask_files.py",
            "tests/unit/runner/test_masks.py",
            "tests/unit/runner/test_preflight.py",
            "tests/unit/runner/test_small_defects.py",
            "tests/unit/runner/test_splits.py",
            "tests/unit/runner/test_storage.py",
            "tests/unit/runner/test_stored_listing.py",
            "tests/unit/runner/test_summary.py",
            "tests/unit/runner/test_synthetic_defects.py",
            "tests/unit/runner/test_tables.py",
            "tests/unit/runner/test_valid_area.py",
        ),
    ),
    Group(
        "transfer",
        (
            "anomaly_runner/context.py",
            "anomaly_runner/publish.py",
            "anomaly_runner/reporting/image_results.py",
            "anomaly_runner/reporting/report.py",
            "anomaly_runner/reporting/tables.py",
            "anomaly_runner/storage/*.py",
            "anomaly_runner/system/full_disk.py",
            "anomaly_runner/termination.py",
            "anomaly_runner/tracking/*.py",
        ),
        (
            "tests/unit/runner/test_full_disk.py",
            "tests/unit/runner/test_image_results.py",
            "tests/unit/runner/test_mlflow_runs.py",
            "tests/unit/runner/test_names.py",
            "tests/unit/runner/test_object_cache.py",
            "tests/unit/runner/test_prefetch.py",
            "tests/unit/runner/test_publish.py",
            "tests/unit/runner/test_report.py",
            "tests/unit/runner/test_run_record.py",
            "tests/unit/runner/test_run_results.py",
            "tests/unit/runner/test_s3_requests.py",
            "tests/unit/runner/test_storage.py",
            "tests/unit/runner/test_store_keys.py",
            "tests/unit/runner/test_predictions_table.py",
            "tests/unit/runner/test_termination.py",
            # No unit tests, for MLflow is slow to import, but they take seconds: all that they ask is a fake.
            "tests/component/test_mlflow_entities.py",
            "tests/component/test_mlflow_failures.py",
            "tests/component/test_mlflow_logging.py",
            "tests/component/test_mlflow_registered_model.py",
            "tests/component/test_mlflow_tracker.py",
        ),
    ),
)
