"""Something done by somebody whom the permissions of files bind, even where that is root."""

from __future__ import annotations

import ctypes
import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

import pytest

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITIES_VERSION = 0x20080522
Answer = TypeVar("Answer")


def forked(action: Callable[[], object]) -> int:
    """Do something in a copy of this process, since a new one takes seconds to import."""
    child = os.fork()
    if not child:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def without_powers(action: Callable[[], Answer]) -> Answer:
    """What something gives, done in a copy of this process that obeys permissions."""
    ours, its = os.pipe()

    def act() -> None:
        answer = (action(),) if _given_up() else None
        with os.fdopen(its, "wb") as pipe:
            pickle.dump(answer, pipe)

    child = forked(act)
    os.close(its)
    with os.fdopen(ours, "rb") as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    answer: tuple[Answer] | None = pickle.loads(text)  # noqa: S301 - our own
    if answer is None:
        pytest.skip("root cannot give up its powers here")
    return answer[0]


def _given_up() -> bool:
    """Whether even root obeys the permissions of files in this process from now on."""
    if os.getuid() != 0:
        return True
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inherited; and of the higher numbers
    if libc.capget(header, sets):
        return False
    for place in range(3):
        sets[place] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    return not libc.capset(header, sets)
