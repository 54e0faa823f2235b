"""Disks that are full, and limits of the size of files."""

import errno
import shutil

from tests.faults.processes import Fault
from tests.faults.trials import EXACT, REFUSED, TRACEBACK, Trial, Workshop

FULL = errno.ENOSPC


def fill(shop: Workshop, name: str, fault: Fault) -> Trial:
    """Runs while a write fails, and resumes when there is room again."""
    out, what = shop.place(), f"{name}, {fault}"
    ending = shop.run(name, out, fault)
    if not ending.code:
        return shop.judge(name, what, out, ending)
    # A path is named: below `out`, or of a temporary file.
    if not ending.clean or "/" not in ending.errors[0]:
        shutil.rmtree(out, ignore_errors=True)
        return Trial(what, TRACEBACK, f"{ending.code}: {ending.text[-3000:]}", True)
    trial = shop.judge(name, what, out, shop.resume(name, out))
    if trial.outcome == EXACT:
        return Trial(what, REFUSED, ending.errors[0])
    return trial._replace(wrong=True)
