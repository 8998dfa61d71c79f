"""What a lab host is and has, read before anything is changed."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

from pyinfra.connectors.local import LocalConnector

from umlaan.agent.preflight import probe
from umlaan.facts.base import JsonFact, ask_agent
from umlaan.model.host import LabHost
from umlaan.model.lab import Lab
from umlaan.plan.preflight import Report, judge, probe_spec

if TYPE_CHECKING:
    from pyinfra.api.host import Host


class Machine(JsonFact):
    """The agent's probe; on a machine without python3, that alone."""

    def command(self, agent: str, spec: str) -> str:
        """One command, also where there is no python3 yet."""
        return (
            "if command -v python3 >/dev/null; then "
            f"{agent} probe {shlex.quote(spec)}; "
            """else echo '{"python": null}'; fi"""
        )


def examine(on: Host, lab: Lab, host: LabHost) -> tuple[dict[str, Any], Report]:
    """What was found on a lab host, and what it lacks; preflight and ``umlaan doctor`` ask here."""
    spec = probe_spec(lab, host)
    found: dict[str, Any]
    if isinstance(on.connector, LocalConnector) and os.geteuid() == 0:
        found = probe(json.loads(spec))
    else:
        found = ask_agent(on, Machine, spec)
    return found, judge(lab, host, found)
