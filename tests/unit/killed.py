"""A writer that is killed right before one of its steps on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from gevent import monkey


def killed_at(step: int, work: Callable[[], object], steps: Sequence[str]) -> bool:
    """A child that does the work ends as SIGKILL would end it, before a step; False if none."""
    # gevent, which the tests run on, waits for children in a way of its own.
    fork, waitpid = (monkey.get_original("os", name) for name in ("fork", "waitpid"))
    child = fork()
    if child == 0:
        begun = 0

        def ending(real: Any) -> Any:
            def call(*words: Any, **more: Any) -> Any:
                nonlocal begun
                begun += 1
                if begun == step:
                    os._exit(9)
                return real(*words, **more)

            return call

        for name in steps:
            setattr(os, name, ending(getattr(os, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9
