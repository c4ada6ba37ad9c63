"""The cache keeps the newest view, in whatever order views arrive."""

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.views import job_view, pod_view
from support.objects import EXPERIMENT, INFERENCE, KEY, make_job, make_pod, make_run, raw_job, raw_pod


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
