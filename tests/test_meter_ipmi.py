"""IPMI: an ipmitool that replays answers, logins that leak nothing, and what is in the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sysfs_tree import write

from wattbench.core.energy import PowerTrace
from wattbench.core.errors import MeterError
from wattbench.energy import measure
from wattbench.meters.ipmi import IpmiMeter, IpmiOptions, PowerReading, parse_reading
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter

CONTEXT = PluginContext(hardware=None, seed=0)
SECRET = "tr0ub4dor&3"  # noqa: S105 - it guards nothing
ANSWER = """
    Instantaneous power reading:              {watts:8d} Watts
    Minimum during sampling period:                180 Watts
    Maximum during sampling period:                410 Watts
    Average power reading over sample period:      240 Watts
    IPMI timestamp:                           Thu Feb 15 08:36:01 2024
    Sampling period:                          00000005 Seconds.
    Power reading state is:                   {state}

"""
PROGRAM = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> arguments
echo "${IPMI_PASSWORD-none} ${IPMITOOL_PASSWORD-none}" > password
[ -f pause ] && sleep 5
[ -f broken ] && { cat broken >&2; exit 1; }
cat answer
"""


def answer(folder: Path, watts: int = 237, state: str = "activated") -> None:
    write(folder / "answer", ANSWER.format(watts=watts, state=state))


@pytest.fixture
def bmc(tmp_path: Path) -> Path:
    """A folder with a program that prints ``answer``, or fails with what ``broken`` says."""
    program = tmp_path / "ipmitool"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    answer(tmp_path)
    return tmp_path


def options(folder: Path, **changes: object) -> IpmiOptions:
    known: dict[str, object] = {"command": str(folder / "ipmitool"), "period_s": 0.1}
    return IpmiOptions(**known | changes)  # type: ignore[arg-type]


def refusal(folder: Path, **changes: object) -> MeterError:
    with pytest.raises(MeterError) as refused:
        IpmiMeter(options(folder, **changes), CONTEXT).open_source()
    return refused.value


def test_both_ways_of_printing_are_read() -> None:
    """Older versions print the stamp and the sampling period on one line."""
    expected = PowerReading(
        power_watts=237.0, active=True, sampling_s=5.0, stamp="Thu Feb 15 08:36:01 2024"
    )
    assert parse_reading(ANSWER.format(watts=237, state="activated")) == expected
    one_line = ANSWER.format(watts=1, state="deactivated").replace("2024\n", "2024 ")
    found = parse_reading(one_line)
    assert found is not None
    assert (found.stamp, found.sampling_s, found.active) == (expected.stamp, 5.0, False)
    assert parse_reading("DCMI request failed because: Invalid command (c1)") is None


def test_known_power_that_steps(bmc: Path) -> None:
    """200 W, then 400 W: the energy of both is right within what the reads leave open."""
    answer(bmc, 200)
    (trace,) = check_meter(
        IpmiMeter,
        options(bmc, update_period_s=0.2),
        duration_s=2.0,
        on_half=lambda: answer(bmc, 400),
    ).values()
    assert isinstance(trace, PowerTrace)
    assert (trace.domain.boundary, trace.domain.current) == ("node", "ac")
    assert trace.domain.on_client_host
    start_s, end_s = trace.time_s[0] + 0.2, trace.time_s[-1] - 0.2
    step_s = float(trace.time_s[np.argmax(trace.power_watts > 300)])
    truth = 200.0 * (step_s - start_s) + 400.0 * (end_s - step_s)
    assert measure(trace, start_s, end_s).energy_joules == pytest.approx(truth, rel=0.15)
    assert "dcmi power reading" in (bmc / "arguments").read_text()
    assert (bmc / "password").read_text().split() == ["none", "none"]


def test_a_bmc_that_disappears_half_way_ends_the_run(bmc: Path) -> None:
    """What was read stays, and nothing is read as 0."""
    lost = "Error: Unable to establish IPMI v2 / RMCP+ session"
    (trace,) = check_meter(
        IpmiMeter, options(bmc), on_half=lambda: write(bmc / "broken", lost)
    ).values()
    assert isinstance(trace, PowerTrace)
    assert set(trace.power_watts[np.isfinite(trace.power_watts)]) == {237.0}


def test_a_password_is_neither_an_argument_nor_in_a_message(
    bmc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches the program in its environment; one of another BMC does not."""
    monkeypatch.setenv("BMC_SECRET", SECRET)
    monkeypatch.setenv("IPMITOOL_PASSWORD", "another")
    login = {"host": "10.0.0.7", "user": "reader", "password_env": "BMC_SECRET"}
    source = IpmiMeter(options(bmc, **login), CONTEXT).open_source()
    (domain,) = source.domains
    assert (domain.name, domain.host) == ("10.0.0.7/node:0", "10.0.0.7")
    assert not domain.on_client_host
    assert SECRET not in repr(domain)
    assert (bmc / "password").read_text().split() == [SECRET, "none"]
    arguments = (bmc / "arguments").read_text()
    assert "-I lanplus -H 10.0.0.7 -U reader -E dcmi power reading" in arguments
    assert SECRET not in arguments
    write(bmc / "broken", f"RAKP 2 HMAC is invalid for {SECRET}")
    error = refusal(bmc, **login)
    assert SECRET not in str(error)
    assert "BMC_SECRET" in (error.fix or "")


def test_a_password_that_is_not_set_is_asked_for(bmc: Path) -> None:
    assert "IPMI_TEST_NOT_SET" not in os.environ
    login = {"host": "10.0.0.7", "user": "reader", "password_env": "IPMI_TEST_NOT_SET"}
    assert "export IPMI_TEST_NOT_SET" in (refusal(bmc, **login).fix or "")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (
            "Could not open device at /dev/ipmi0 or /dev/ipmi/0: No such file or directory",
            "modprobe",
        ),
        ("Could not open device at /dev/ipmi0: Permission denied", "sudo chmod a+rw /dev/ipmi0"),
        ("DCMI request failed because: Invalid command (c1)", "--meter redfish"),
        ("Error in open session response: unauthorized name", "user="),
    ],
)
def test_what_is_in_the_way_comes_with_its_fix(bmc: Path, said: str, fix: str) -> None:
    write(bmc / "broken", said)
    error = refusal(bmc)
    assert fix in (error.fix or "")
    assert said[:40] in error.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "ipmitool").unlink(), "sudo apt install ipmitool"),
        (lambda folder: (folder / "ipmitool").chmod(0o644), "cannot be run"),
        (lambda folder: answer(folder, state="deactivated"), "dcmi power activate"),
        (lambda folder: answer(folder, watts=0), "answers 0 W"),
        (lambda folder: write(folder / "answer", ""), "says: nothing"),
    ],
)
def test_no_power_is_an_error(bmc: Path, change: Callable[[Path], None], words: str) -> None:
    """A program that is missing or odd, a BMC that does not measure."""
    change(bmc)
    assert words in str(refusal(bmc))


def test_a_bmc_that_does_not_answer_is_given_up(bmc: Path) -> None:
    (bmc / "pause").touch()
    assert "did not answer within 0.2 s" in str(refusal(bmc, timeout_s=0.2))


def test_impossible_options_are_refused() -> None:
    for changes in ({"host": "h"}, {"user": "u"}, {"host": "-v", "user": "u"}, {"period_s": 0.0}):
        with pytest.raises(ValueError, match=r"go together|no address|must be from"):
            IpmiOptions(**changes)
