"""What a run found and did, as JSON for the program that asked: the file UMLAAN_PLAN_FILE names.

Floor: beside run.py, which calls it at the run's end.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from umlaan.agent.files import write_atomic
from umlaan.model.outputs import ChangeOutput, PlanOutput
from umlaan.operations.common import reasons_of, steps_of
from umlaan.plan.verdict import Summary

if TYPE_CHECKING:
    from pyinfra.api.state import State

VARIABLE = "UMLAAN_PLAN_FILE"
UNSAID = "it changes, and says no reason"


def write(state: State, lab: str, summary: Summary, *, dry: bool) -> None:
    """Write the outcome where UMLAAN_PLAN_FILE says; nothing without it. OSError if it cannot."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    changes, messages = told(state, dry=dry)
    output = PlanOutput(
        lab=lab,
        dry=dry,
        verdict=summary.verdict,
        operations=summary.operations,
        changed=summary.changed,
        failed=summary.failed,
        seconds=round(summary.seconds, 2),
        changes=tuple(changes),
        messages=tuple(messages),
    )
    write_atomic(path, json.dumps(output.model_dump(mode="json"), indent=1).encode() + b"\n")


def told(state: State, *, dry: bool) -> tuple[list[ChangeOutput], list[ChangeOutput]]:
    """(changes, messages): each reason under the operation that said it, in the run's order."""
    steps = steps_of(state)
    said: dict[tuple[str, str], list[str]] = {}
    for name, reason in reasons_of(state):
        said.setdefault((name, steps.get((name, reason), "")), []).append(reason)
    changes: list[ChangeOutput] = []
    messages: list[ChangeOutput] = []
    # An operation of an earlier deploy file can stand in the order without data for a host.
    for op_hash in state.get_op_order():
        operation = ", ".join(sorted(state.op_meta[op_hash].names))
        for host in state.inventory:
            data = state.ops.get(host, {}).get(op_hash)
            if data is None:
                continue
            reasons = said.pop((host.name, operation), [])
            meta = data.operation_meta
            if meta.is_complete():
                changed = meta.did_change()
            else:
                changed = bool(dry and meta._maybe_is_change)
            if changed and not reasons:
                reasons = [UNSAID]
            rows = changes if changed else messages
            rows += [ChangeOutput(host=host.name, operation=operation, reason=r) for r in reasons]
    for (name, operation), reasons in said.items():
        messages += [ChangeOutput(host=name, operation=operation, reason=r) for r in reasons]
    return changes, messages
