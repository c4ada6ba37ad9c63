"""Perform planned actions. Every Job that the API server returns goes into the cache at once.

Nothing is decided here, apart from what an answer of the API server means: done, refused, or to be tried later.
"""

from anomaly_operator import names
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.observed import Refusal
from anomaly_operator.decide.plan import Action, CreateJob, DeleteJob, DeletePods, PatchJob, Requeue
from anomaly_operator.errors import Conflict, Forbidden, Invalid, NotFound, RequeueRequested
from anomaly_operator.resources import JOBS, PODS, Manifest
from anomaly_operator.views import JobView, job_view

NAMESPACE_TERMINATING = "because it is being terminated"
"""Part of the message with which the API server refuses new objects in a namespace that is being deleted."""


async def apply(client: ApiClient, cache: Cache, namespace: str, action: Action) -> Refusal | None:
    """Perform one action of a run in the namespace.

    Returns:
        Why the API server refused the run's Job, if it did: a state of the run, not a failed reconcile.

    Raises:
        RequeueRequested: the object is gone, or another one must go first: the plan is outdated.
        ApiError: the API server failed otherwise, after the client's own retries.
        LoginError: the credentials in use were rejected and there are no others.
    """
    match action:
        case CreateJob(manifest):
            return await _create_job(client, cache, namespace, manifest)
        case PatchJob(name, spec):
            await _patch_job(client, cache, namespace, name, spec)
        case DeleteJob(name, uid):
            await _delete_job(client, cache, namespace, name, uid)
        case DeletePods(pods):
            for name in pods:
                await _delete_pod(client, namespace, name)
        case Requeue():
            pass  # the reconciler's part, once the status has been written
    return None


async def _create_job(client: ApiClient, cache: Cache, namespace: str, manifest: Manifest) -> Refusal | None:
    try:
        created = await client.create(JOBS, namespace, manifest)
    except Conflict:
        return await _adopt_job(client, cache, namespace, manifest)
    except (Forbidden, Invalid) as refusal:
        if NAMESPACE_TERMINATING in refusal.message:
            raise RequeueRequested from refusal
        return Refusal(refusal.message)
    cache.put_job(job_view(created))
    return None


async def _adopt_job(client: ApiClient, cache: Cache, namespace: str, manifest: Manifest) -> Refusal | None:
    """Adopt the existing Job of that name if it is this run's; refuse a Job of another owner.

    Raises:
        RequeueRequested: the Job is gone, or is one that will be garbage-collected.
    """
    name, owner = manifest["metadata"]["name"], manifest["metadata"]["ownerReferences"][0]
    try:
        job = job_view(await client.get(JOBS, namespace, name))
    except NotFound:
        raise RequeueRequested from None

    # Ours: an earlier create succeeded and its answer was lost.
    if job.is_controlled_by(owner["uid"]) and not job.deleting:
        cache.put_job(job)
        return None

    # Being deleted, or soon to be garbage-collected with an earlier resource of the same name.
    of_earlier_resource = job.owner is not None and (job.owner.kind, job.owner.name) == (owner["kind"], owner["name"])
    if job.deleting or of_earlier_resource:
        raise RequeueRequested
    return Refusal(f"a Job named {name} exists that does not belong to this run; delete it or rename the run")


async def _patch_job(client: ApiClient, cache: Cache, namespace: str, name: str, spec: Manifest) -> None:
    try:
        cache.put_job(job_view(await client.patch(JOBS, namespace, name, {"spec": spec})))
    except NotFound:
        raise RequeueRequested from None


async def _delete_job(client: ApiClient, cache: Cache, namespace: str, name: str, uid: str) -> None:
    try:
        await client.delete(JOBS, namespace, name, uid)
    except (NotFound, Conflict):
        raise RequeueRequested from None
    # What it says is of no use any more, whenever the watch tells of its end.
    job = cache.jobs.get((namespace, name))
    if job is not None and job.uid == uid:
        cache.remove_job(job)


async def _delete_pod(client: ApiClient, namespace: str, name: str) -> None:
    try:
        await client.delete(PODS, namespace, name)
    except NotFound:
        return


def pods_selector(job: JobView) -> str:
    """Return the label selector of a Job's pods."""
    return f"{names.JOB_NAME_LABEL}={job.name}"
