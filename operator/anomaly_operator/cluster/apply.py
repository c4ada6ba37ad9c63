"""Carrying out planned actions. What the API server answers is put into the cache at once."""

from anomaly_operator import names
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.observed import Refusal
from anomaly_operator.decide.plan import Action, CreateJob, DeleteJob, DeletePods, PatchJob, Wait
from anomaly_operator.decide.pod import Manifest
from anomaly_operator.errors import Conflict, Forbidden, Invalid, NotFound
from anomaly_operator.resources import JOBS, PODS
from anomaly_operator.views import JobView, job_view

NAMESPACE_ENDS = "because it is being terminated"
"""How the API server refuses new objects in a namespace that goes, and all runs in it with it."""


class Later(Exception):  # noqa: N818 - no failure
    """The run has to be looked at again: something that is not ours to do must happen first."""


async def apply(client: ApiClient, cache: Cache, namespace: str, action: Action) -> Refusal | None:
    """Carry out one action; a Job that the API server does not take is a result, not an error."""
    match action:
        case CreateJob(manifest):
            return await _create_job(client, cache, namespace, manifest)
        case PatchJob(name, spec):
            await _patch_job(client, cache, namespace, name, spec)
        case DeleteJob(name, uid):
            await _delete_job(client, namespace, name, uid)
        case DeletePods(pods):
            for name in pods:
                await _delete_pod(client, namespace, name)
        case Wait():
            pass
    return None


async def _create_job(client: ApiClient, cache: Cache, namespace: str, manifest: Manifest) -> Refusal | None:
    try:
        created = await client.create(JOBS, namespace, manifest)
    except Conflict:
        return await _adopt_job(client, cache, namespace, manifest)
    except (Forbidden, Invalid) as refusal:
        if NAMESPACE_ENDS in refusal.message:
            raise Later from refusal
        return Refusal(refusal.message)
    cache.put_job(job_view(created))
    return None


async def _adopt_job(client: ApiClient, cache: Cache, namespace: str, manifest: Manifest) -> Refusal | None:
    """There is a Job of this name: ours, one of an earlier run that is being collected, or a stranger's."""
    name, ours = manifest["metadata"]["name"], manifest["metadata"]["ownerReferences"][0]
    try:
        job = job_view(await client.get(JOBS, namespace, name))
    except NotFound:
        raise Later from None
    if job.owner and job.owner.uid == ours["uid"] and not job.deleting:
        cache.put_job(job)
        return None
    if job.deleting or (job.owner and (job.owner.kind, job.owner.name) == (ours["kind"], ours["name"])):
        raise Later
    return Refusal(f"a Job named {name} exists that does not belong to this run; delete it or rename the run")


async def _patch_job(client: ApiClient, cache: Cache, namespace: str, name: str, spec: Manifest) -> None:
    try:
        cache.put_job(job_view(await client.patch(JOBS, namespace, name, {"spec": spec})))
    except NotFound:
        raise Later from None


async def _delete_job(client: ApiClient, namespace: str, name: str, uid: str) -> None:
    try:
        await client.delete(JOBS, namespace, name, uid)
    except (NotFound, Conflict):
        raise Later from None


async def _delete_pod(client: ApiClient, namespace: str, name: str) -> None:
    try:
        await client.delete(PODS, namespace, name)
    except NotFound:
        return


def pods_selector(job: JobView) -> str:
    """Label selector of a Job's pods."""
    return f"{names.JOB_NAME_LABEL}={job.name}"
