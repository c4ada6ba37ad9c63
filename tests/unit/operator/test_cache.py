"""The cache keeps the newest view, in whatever order views arrive."""

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.keys import RunKey
from anomaly_operator.views import RunView, job_view, pod_view
from support.objects import EXPERIMENT, INFERENCE, KEY, UID, make_job, make_pod, make_run, raw_job, raw_pod


def test_an_older_view_never_replaces_a_newer_one() -> None:
    cache = Cache()
    assert cache.put_run(make_run(EXPERIMENT, resourceVersion="10")) == {KEY}
    assert cache.put_run(make_run(EXPERIMENT, resourceVersion="9")) == set()
    assert cache.put_run(make_run(EXPERIMENT, resourceVersion="10")) == set()
    assert cache.put_run(make_run(EXPERIMENT, resourceVersion="100")) == {KEY}


def test_a_deleted_object_never_returns_but_its_successor_does() -> None:
    cache = Cache()
    old = make_run(EXPERIMENT)
    cache.put_run(old)
    assert cache.remove_run(old) == {KEY}
    assert cache.put_run(make_run(EXPERIMENT, resourceVersion="50")) == set()
    assert cache.put_run(make_run(EXPERIMENT, uid="new", resourceVersion="51")) == {KEY}
    cache.remove_run(old)
    assert cache.runs.get(KEY) is not None


def test_an_inference_is_reconciled_when_its_experiment_changes() -> None:
    cache = Cache()
    inference = make_run(INFERENCE, uid="inference")
    cache.put_run(inference)
    assert cache.put_run(make_run(EXPERIMENT)) == {KEY, inference.key}
    assert cache.remove_run(make_run(EXPERIMENT)) == {KEY, inference.key}
    cache.remove_run(inference)
    assert cache.put_run(make_run(EXPERIMENT, uid="new")) == {KEY}


def test_pods_belong_to_the_job_of_their_owner_oldest_first() -> None:
    cache = Cache()
    cache.put_job(make_job())
    assert cache.put_pod(make_pod(2)) == {KEY}
    assert cache.put_pod(make_pod(1)) == {KEY}
    foreign_pod = raw_pod(3)
    foreign_pod["metadata"]["ownerReferences"][0]["uid"] = "an-earlier-job"
    cache.put_pod(pod_view(foreign_pod))
    assert [pod.name for pod in cache.pods_of(make_job())] == ["screws-experiment-1", "screws-experiment-2"]
    cache.remove_pod(make_pod(1))
    assert [pod.name for pod in cache.pods_of(make_job())] == ["screws-experiment-2"]


def test_a_termination_message_outlives_its_pod_but_not_its_job() -> None:
    cache = Cache()
    cache.put_job(make_job())
    finished = raw_pod(1)
    finished["status"]["phase"] = "Succeeded"
    cache.put_pod(pod_view(finished))
    cache.remove_pod(pod_view(finished))
    [kept] = cache.pods_of(make_job())
    assert kept.finished
    assert kept.deleting
    assert cache.with_deleted_pods(make_job(), [pod_view(finished)]) == (kept,), "a LIST may be older than the deletion"
    cache.remove_job(make_job())
    assert cache.pods_of(make_job()) == ()


def test_a_list_reveals_missing_objects_but_not_newer_ones() -> None:
    cache = Cache()
    cache.put_job(make_job())
    late = raw_job()
    late["metadata"] |= {"name": "late", "resourceVersion": "99"}
    cache.put_job(job_view(late))
    cache.jobs.start_listing()
    assert [job.name for job in cache.jobs.missing([], resource_version=50)] == ["screws-experiment"]


def trial(number: int = 0, sweep_uid: str = "of-hunt", phase: str = "Running", **metadata: str | int) -> RunView:
    """Return a trial of the sweep ``hunt``."""
    owner = {"kind": "AnomalyExperiment", "name": "hunt", "uid": sweep_uid, "controller": True}
    manifest = EXPERIMENT | {"metadata": {"name": f"hunt-t{number}", "ownerReferences": [owner], "uid": f"t{number}"}}
    return make_run(manifest, {"phase": phase}, **metadata)


HUNT = RunKey("AnomalyExperiment", "vision", "hunt")
T0, T1 = trial(0).key, trial(1).key


def test_a_sweep_is_reconciled_once_when_a_trial_is_over() -> None:
    cache = Cache()
    assert cache.put_run(trial()) == {T0}
    assert cache.put_run(trial(phase="Complete", resourceVersion=11)) == {T0, HUNT}
    assert cache.put_run(trial(phase="Complete", resourceVersion=12)) == {T0}
    assert cache.put_run(trial(1, phase="Failed")) == {T1, HUNT}, "one that is seen when it is over"


def test_the_trials_of_a_sweep_are_those_of_its_uid() -> None:
    cache = Cache()
    for one in (trial(0), trial(1), trial(2, sweep_uid="of-an-earlier-one"), make_run(EXPERIMENT)):
        cache.put_run(one)
    assert {one.key for one in cache.trials_of(HUNT, "of-hunt")} == {T0, T1}
    assert cache.trials_of(HUNT, "another") == []
    assert cache.trials_of(KEY, "of-hunt") == []


def test_a_deleted_trial_is_told_to_its_sweep_once() -> None:
    cache = Cache()
    for one in (trial(0), trial(1)):
        cache.put_run(one)
    assert cache.remove_run(trial(0)) == {T0, HUNT}
    assert [one.key for one in cache.trials_of(HUNT, "of-hunt")] == [T1]
    assert cache.remove_run(trial(0)) == {T0}, "told already"
    assert cache.remove_run(trial(1)) == {T1, HUNT}
    assert cache.take_removed(KEY) == []
    assert cache.take_removed(HUNT) == [trial(0), trial(1)]
    assert cache.take_removed(HUNT) == []
    assert cache.trials_of(HUNT, "of-hunt") == []


def test_what_is_told_late_of_a_deleted_trial_does_not_concern_its_successor() -> None:
    cache = Cache()
    cache.put_run(trial(0))
    cache.remove_run(trial(0))
    cache.put_run(trial(0, uid="second", resourceVersion="20"))
    assert cache.remove_run(trial(0)) == {T0}
    assert [one.uid for one in cache.trials_of(HUNT, "of-hunt")] == ["second"]
    assert cache.take_removed(HUNT) == [trial(0)]


def test_an_experiment_that_was_a_trial_is_none_any_more() -> None:
    """Its sweep was deleted with ``--cascade=orphan``, or its name was taken while the watch was broken."""
    cache = Cache()
    for one in (trial(0), trial(1)):
        cache.put_run(one)
    orphan = make_run(EXPERIMENT | {"metadata": {"name": "hunt-t0"}}, uid="t0", resourceVersion="11")
    assert cache.put_run(orphan) == {T0}
    assert [one.key for one in cache.trials_of(HUNT, "of-hunt")] == [T1]
    assert cache.remove_run(orphan) == {T0}
    assert cache.take_removed(HUNT) == []


def test_an_inference_that_names_another_experiment_no_longer_depends_on_the_first() -> None:
    cache = Cache()
    other = INFERENCE | {"spec": INFERENCE["spec"] | {"model": {"experiment": "nails"}}}
    nails = EXPERIMENT | {"metadata": {"name": "nails", "namespace": "vision", "uid": "of-nails"}}
    for run in (make_run(INFERENCE, uid="i"), make_run(INFERENCE, uid="i", resourceVersion="11")):
        cache.put_run(run)
    inference = make_run(other, uid="i", resourceVersion="12")
    cache.put_run(inference)
    assert cache.put_run(make_run(EXPERIMENT)) == {KEY}
    assert cache.put_run(make_run(nails)) == {make_run(nails).key, inference.key}
    second = INFERENCE | {"metadata": {"name": "second", "namespace": "vision"}}
    cache.put_run(make_run(second, uid="s"))
    cache.put_run(make_run(INFERENCE, uid="i", resourceVersion="13"))
    assert cache.put_run(make_run(EXPERIMENT, resourceVersion="14")) == {KEY, inference.key, make_run(second).key}
    cache.remove_run(make_run(INFERENCE, uid="i", resourceVersion="13"))
    assert cache.put_run(make_run(EXPERIMENT, resourceVersion="15")) == {KEY, make_run(second).key}


def test_the_jobs_of_a_run_are_those_of_its_uid_by_name() -> None:
    cache = Cache()
    for which in ((2, None), (None, "check"), (None, None)):
        assert cache.put_job(make_job(which=which)) == {KEY}
    foreign = raw_job(owner_uid="an-earlier-one", which=(9, None))
    foreign["metadata"]["uid"] = "of-an-earlier-one"
    cache.put_job(job_view(foreign))
    expected = ["screws-experiment", "screws-experiment-2", "screws-experiment-check"]
    assert [job.name for job in cache.jobs_of(KEY, UID)] == expected
    assert cache.jobs_of(KEY, "another") == ()
    assert cache.jobs_of(HUNT, UID) == ()


def test_a_job_that_is_gone_is_told_to_its_run_once() -> None:
    cache = Cache()
    for which in ((None, None), (2, None)):
        raw = raw_job(which=which)
        raw["metadata"]["uid"] = f"job-{which[0]}"
        cache.put_job(job_view(raw))
        assert cache.put_job(job_view(raw)) == set(), "known already"
    gone = cache.jobs.get(("vision", "screws-experiment"))
    assert gone
    assert cache.remove_job(gone) == {KEY}
    assert cache.remove_job(gone) == set()
    assert [job.name for job in cache.jobs_of(KEY, UID)] == ["screws-experiment-2"]


def test_what_belongs_to_nobody_concerns_no_run() -> None:
    cache = Cache()
    nobodys_job, nobodys_pod = raw_job(), raw_pod()
    for raw in (nobodys_job, nobodys_pod):
        raw["metadata"]["ownerReferences"] = []
    assert cache.put_job(job_view(nobodys_job)) == set()
    assert cache.put_pod(pod_view(nobodys_pod)) == set()
    assert cache.put_pod(make_pod(2)) == set(), "its Job is nobody's"
    assert cache.remove_pod(pod_view(nobodys_pod)) == set()
    assert cache.remove_job(job_view(nobodys_job)) == set()
    assert (len(cache.pods), len(cache.jobs)) == (1, 0)


def test_a_pod_that_goes_is_told_to_its_run_once_and_kept_only_if_it_had_finished() -> None:
    cache = Cache()
    cache.put_job(make_job())
    for number, phase in ((1, "Running"), (2, "Failed")):
        cache.put_pod(make_pod(number, phase=phase))
    assert cache.put_pod(make_pod(2, phase="Failed")) == set(), "known already"
    assert cache.remove_pod(make_pod(1, phase="Running")) == {KEY}
    assert cache.remove_pod(make_pod(1, phase="Running")) == set()
    assert cache.remove_pod(make_pod(2, phase="Failed")) == {KEY}
    assert [(pod.name, pod.deleting) for pod in cache.pods_of(make_job())] == [("screws-experiment-2", True)]


def test_a_finished_pod_of_an_earlier_job_of_the_name_is_not_kept() -> None:
    cache = Cache()
    earlier = make_pod(1, phase="Failed")
    cache.put_pod(earlier)
    raw = raw_job()
    raw["metadata"]["uid"] = "another"
    later = job_view(raw)
    cache.put_job(later)
    cache.remove_pod(earlier)
    assert (cache.pods_of(later), cache.pods_of(make_job())) == ((), ())


def test_pods_of_the_same_second_are_in_the_order_of_their_versions() -> None:
    pods = []
    for number, version in ((1, "9"), (2, "8"), (3, "10")):
        raw = raw_pod(number)
        raw["metadata"] |= {"creationTimestamp": "2026-01-02T03:04:00Z", "resourceVersion": version}
        pods.append(pod_view(raw))
    assert [pod.uid for pod in Cache().with_deleted_pods(make_job(), pods)] == ["pod-2", "pod-1", "pod-3"]


def test_deletions_are_remembered_until_the_next_list_begins() -> None:
    cache = Cache()
    assert cache.runs.get(KEY) is None
    assert cache.runs.remove(make_run(EXPERIMENT)) is False
    assert cache.put_run(make_run(EXPERIMENT)) == set(), "told of after its end"
    cache.runs.start_listing()
    assert cache.put_run(make_run(EXPERIMENT)) == {KEY}
    assert [run.key for run in cache.runs.missing([], resource_version=10)] == [KEY]
    assert cache.runs.missing([KEY], resource_version=10) == []
    assert cache.runs.missing([], resource_version=9) == []


def test_what_is_gone_leaves_nothing_behind() -> None:
    cache = Cache()
    inference = make_run(INFERENCE, uid="i")
    failed = make_pod(2, phase="Failed")
    for run in (trial(0), trial(1), inference):
        cache.put_run(run)
    cache.put_job(make_job())
    for pod in (make_pod(1), failed):
        cache.put_pod(pod)
    assert [pod.uid for pod in cache.pods] == ["pod-1", "pod-2"]
    assert (cache.pods.key_of(failed), len(cache.runs)) == (("vision", "screws-experiment-2"), 3)
    for run in (trial(0), trial(1), inference):
        cache.remove_run(run)
    for pod in (make_pod(1), failed):
        cache.remove_pod(pod)
    cache.remove_job(make_job())
    cache.take_removed(HUNT)
    assert {name: kept for name, kept in vars(cache).items() if isinstance(kept, dict) and kept} == {}
