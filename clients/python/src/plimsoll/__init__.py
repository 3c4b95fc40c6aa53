"""Lets a model server give memory back before anybody is frozen or killed.

    import plimsoll

    client = plimsoll.Plimsoll()

    @client.on_trim
    def trim(request):
        cache.clear()
        return plimsoll.collect_garbage()

Without a controller on this machine nothing ever happens. See README.md.
"""

import logging

from .callbacks import Listener, Registered
from .client import Plimsoll
from .cuda import CudaGuard, classify
from .errors import ControlError, NoRoom, PlimsollError, Refuse, StickyCudaError, Unloaded
from .gate import Inflight, WhenClosed
from .ladder import Setting, Step, StepDown
from .meters import collect_garbage, host_bytes, trim_malloc
from .request import Freed, Level, Request, Shutdown
from .reservation import GpuRoom, Headroom, Option, Reservation

logging.getLogger("plimsoll").addHandler(logging.NullHandler())

__version__ = "0.1.0"

__all__ = [
    "ControlError",
    "CudaGuard",
    "Freed",
    "GpuRoom",
    "Headroom",
    "Inflight",
    "Level",
    "Listener",
    "NoRoom",
    "Option",
    "Plimsoll",
    "PlimsollError",
    "Refuse",
    "Registered",
    "Request",
    "Reservation",
    "Setting",
    "Shutdown",
    "Step",
    "StepDown",
    "StickyCudaError",
    "Unloaded",
    "WhenClosed",
    "classify",
    "collect_garbage",
    "host_bytes",
    "trim_malloc",
]
