"""What became of runs and their Jobs on a played API server, seen from beside the operator, which is held against it.

It judges every write that takes effect, so that what is wrong for a moment alone is seen, too.
"""

import json
from collections import Counter
from collections.abc import Callable

from anomaly_api.reasons import ExitCode, Reason
from anomaly_operator import names
from anomaly_operator.resources import Manifest
from support.played_api import PlayedApi
from support.played_controllers import exit_code

OVER = ("Complete", "Failed")
RUNS = ("anomalyexperiments", "anomalyinferences")
HEARD_SECONDS = 2.0
"""Seconds after which an operator that sees everything, and whose requests are answered, has heard of something."""

Which = tuple[str, str, str]
"""UID of the resource, number of the run, step; a step that is the work itself is empty."""


class Truth:
    """What became of the Jobs.

    Args:
        api: the API server.
        sees: whether the operator's watches tell it everything, and its requests are answered.
    """

    def __init__(self, api: PlayedApi, sees: Callable[[], bool]) -> None:
        self._api = api
        self._sees = sees
        self.ends: dict[Which, set[str]] = {}
        """The reasons that the status may give."""
        self.told: Counter[tuple[str, int]] = Counter()
        """How often the end of a run was told, by UID and number."""
        self.trials: set[str] = set()
        """UIDs of trials, of which no Events tell."""
        self._made: set[str] = set()  # digests of what the pods of Jobs were told
        self._deleted: set[Which] = set()  # Jobs that a user deleted
        self._going: dict[str, float] = {}  # UID of a resource that is deleted, or being deleted -> since when
        api.judges.append(self._judge)
        api.watches.append(self._watch)

    def job_ends(self, job: Manifest, pods: list[Manifest]) -> None:
        """Note how a Job ended."""
        ended = [pod for pod in pods if pod["status"]["phase"] in ("Succeeded", "Failed")]
        succeeded = [pod for pod in ended if pod["status"]["phase"] == "Succeeded"]
        reason = ExitCode(exit_code((succeeded or ended)[-1])).reason
        self.ends.setdefault(which_job(job), set()).add(str(reason))

    def pods_are_lost(self, job: Manifest) -> None:
        """Note that nobody may know how a Job ended."""
        self.ends.setdefault(which_job(job), set()).add(str(Reason.RESULT_LOST))

    def job_is_deleted(self, job: Manifest) -> None:
        """Note that a Job may have to be made again: nobody but a user deleted it."""
        self._deleted.add(which_job(job))

    def _watch(self, plural: str, event: str, manifest: Manifest) -> None:
        if plural in RUNS and (event == "DELETED" or "deletionTimestamp" in manifest["metadata"]):
            self._going.setdefault(manifest["metadata"]["uid"], self._api.seconds())

    def _judge(self, verb: str, plural: str, known: Manifest | None, new: Manifest) -> None:
        if plural == "jobs":
            self._judge_job(verb, new)
        if verb == "update" and known is not None and plural in RUNS and known.get("status") != new.get("status"):
            self._judge_status(known, new)
        if verb == "create" and plural in RUNS:
            self._judge_owner(f"trial {new['metadata']['name']}", new)

    def _judge_job(self, verb: str, job: Manifest) -> None:
        run = self._run_of(job)
        if verb == "create":
            self._judge_owner(f"Job {job['metadata']['name']}", job)
            if run is not None:  # else it is garbage at once
                self._judge_new_job(job, run)
        else:
            self._judge_owner(f"Job {job['metadata']['name']}", job)
        if verb == "delete" and run is not None:
            self._judge_deletion(job, run)

    def _judge_owner(self, what: str, made: Manifest) -> None:
        """Complain of what is made, or touched, for something that has been going for a while."""
        if not (owners := made["metadata"].get("ownerReferences")):
            self._complain(f"{what} belongs to nobody")
            return
        since = self._going.get(owners[0]["uid"])
        if since is not None and self._api.seconds() - since > HEARD_SECONDS and self._sees():
            self._complain(f"{what} is written for a resource that is being deleted or is gone")

    def _judge_new_job(self, job: Manifest, run: Manifest) -> None:
        which, digest = which_job(job), _digest(job)
        if digest in self._made and which not in self._deleted:
            self._complain(f"Job {job['metadata']['name']} of {which} is made again")
        self._deleted.discard(which)
        self._made.add(digest)
        status = run.get("status") or {}
        if status.get("phase") in OVER and str(status["run"]) == which[1]:
            self._complain(f"Job {job['metadata']['name']} of a run that is over")

    def _judge_deletion(self, job: Manifest, run: Manifest) -> None:
        """Complain of the deletion of a Job that is at work on what its resource asks for."""
        status = run.get("status") or {}
        is_over = bool(job.get("status", {}).get("conditions")) or status.get("phase") in OVER
        if run["kind"] == "AnomalyExperiment" and not is_over and _is_wanted(job, run):
            self._complain(f"Job {job['metadata']['name']} is deleted though it does what is wanted")

    def _judge_status(self, known: Manifest, new: Manifest) -> None:
        name, before, after = known["metadata"]["name"], known.get("status") or {}, new["status"]
        if after["observedGeneration"] > known["metadata"]["generation"]:
            self._complain(f"the status of {name} is of a generation that there is not")
        if (before.get("run", 1), before.get("observedGeneration", 0)) > (after["run"], after["observedGeneration"]):
            self._complain(f"the status of {name} is of an earlier run or generation")
        if before.get("phase") in OVER and before.get("run") == after.get("run") and _record(before) != _record(after):
            self._complain(f"the record of {name} was changed")
        if (job := self._api.objects.get(("jobs", after.get("jobName", "")))) and not self._is_of(job, new):
            self._complain(f"the status of {name} names a Job that is not its own")
        if before.get("phase") not in OVER and after.get("phase") in OVER:
            self._judge_end(new)

    def _judge_end(self, run: Manifest) -> None:
        status, uid = run["status"], run["metadata"]["uid"]
        if "trial" in run["spec"]:
            self.trials.add(uid)
        self.told[uid, status["run"]] += 1
        if self.told[uid, status["run"]] > 1:
            self._complain(f"the end of {run['metadata']['name']} was told twice")
        [end] = [each for each in status["conditions"] if each["type"] in OVER and each["status"] == "True"]
        failure = next((step["failure"]["reason"] for step in status.get("steps", []) if "failure" in step), None)
        steps = ("",) if status["phase"] == "Complete" else ("", "check")
        known = [self.ends.get((uid, str(status["run"]), step), set()) for step in steps]
        if end["reason"] != failure and not any(end["reason"] in reasons for reasons in known):
            self._complain(f"{run['metadata']['name']} is told to have ended as {end['reason']}, and not {known}")

    def _run_of(self, job: Manifest) -> Manifest | None:
        """Return the run that a Job belongs to, if it is there."""
        owners = job["metadata"].get("ownerReferences", [])
        found = self._api.objects.get((f"{owners[0]['kind'].lower()}s", owners[0]["name"])) if owners else None
        return found if found and self._is_of(job, found) else None

    def _is_of(self, job: Manifest, run: Manifest) -> bool:
        return any(owner["uid"] == run["metadata"]["uid"] for owner in job["metadata"].get("ownerReferences", []))

    def _complain(self, what: str) -> None:
        self._api.complaints.append(what)


def which_job(job: Manifest) -> Which:
    """Return what a Job is for."""
    labels = job["metadata"]["labels"]
    owner: str = job["metadata"]["ownerReferences"][0]["uid"]
    return owner, labels.get(names.RUN_LABEL, "1"), labels.get(names.STEP_LABEL, "")


def _digest(job: Manifest) -> str:
    """Return what tells a Job of one spec, run and resource from others."""
    digest: str = job["metadata"]["annotations"][names.CONFIG_DIGEST_ANNOTATION]
    return digest


def _is_wanted(job: Manifest, run: Manifest) -> bool:
    """Whether a Job does what its resource asks for: the output tells specs apart here, and rerun asks for another."""
    told = json.loads(job["spec"]["template"]["metadata"]["annotations"][names.CONFIG_ANNOTATION])
    status, asked = run.get("status") or {}, run["spec"].get("runPolicy", {}).get("rerun")
    is_same_run = which_job(job)[1] == str(status.get("run", 1)) and asked == status.get("rerun")
    is_step_at_work = not any(step["name"] == which_job(job)[2] for step in status.get("steps", []))
    same_output: bool = told["experiment"]["output"]["s3"]["uri"] == run["spec"]["output"]["s3"]["uri"]
    return same_output and is_same_run and is_step_at_work


def _record(status: Manifest) -> Manifest:
    """Return what stays of a run that is over: all but what is told of later specs and models."""
    conditions = [{**found, "observedGeneration": 0} for found in status["conditions"]]
    return {**status, "conditions": conditions, "observedGeneration": 0, "trainedBy": None}
