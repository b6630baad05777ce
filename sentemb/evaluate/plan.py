"""What a suite needs on this machine: every task ready to run, and everything that is missing."""

from __future__ import annotations

from sentemb.errors import SentembError
from sentemb.evaluate.plan_mteb import plan_mteb
from sentemb.evaluate.plan_own import plan_geometry, plan_pairs, plan_retrieval, plan_sts, plan_transfer
from sentemb.evaluate.results import TaskFailure
from sentemb.evaluate.suites import Suite
from sentemb.evaluate.work import Plan, Settings

_PLANNERS = {
    "sts": plan_sts,
    "pairs": plan_pairs,
    "retrieval": plan_retrieval,
    "transfer": plan_transfer,
    "geometry": plan_geometry,
    "mteb": plan_mteb,
}


def plan_suite(suite: Suite, settings: Settings) -> Plan:
    """Look for all data of a suite; nothing is encoded."""
    plan = Plan()
    for job in suite.jobs:
        try:
            _PLANNERS[job.kind](job, settings, plan)
        except SentembError as error:
            plan.missing.append(
                TaskFailure(str(job.options.get("name", job.options.get("path", job.kind))), str(error))
            )
    return plan
