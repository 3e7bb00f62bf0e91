"""Power of a whole server, from its management controller: ``ipmitool dcmi power reading``.

Locally the program talks to ``/dev/ipmi0``; with ``host`` it logs in over the network. The password
comes from an environment variable and goes to the program in its environment, never on a command
line. A reading is stamped at the middle of the call. The controller (BMC) updates about once a
second; it does not say what it looks at in between, nor over how long the value is a mean.

Prior on readings, unverified: a gain within ± 5 % and an offset within ± 5 W; makers of servers
state a few per cent, if anything.

Source: *Data Center Manageability Interface Specification* 1.5, section 6.6.1, Get Power Reading;
ipmitool(1).
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source, bracketed
from wattbench.plugins import PluginContext, option

GAIN, OFFSET_WATTS = 0.05, 5.0

_FIX = (
    (r"/dev/ipmi.*permission denied", "Run with sudo, or: sudo chmod a+rw /dev/ipmi0"),
    (r"could not open device|/dev/ipmi", "sudo modprobe -a ipmi_si ipmi_devintf"),
    (
        r"RAKP|HMAC|unauthorized|password|privilege|unable to establish",
        "Check host=…, user=… and the password in {password_env}; the user needs no more than the "
        "privilege User, and IPMI over LAN must be on.",
    ),
    (
        r"DCMI request failed|DCMI command was not returned|invalid command|unable to get DCMI",
        "This BMC has no DCMI power reading; try --meter redfish,url=https://BMC.",
    ),
)
"""What ipmitool says, and the way out; the first that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpmiOptions:
    """Options of ``--meter ipmi``."""

    host: str | None = option(None, "address of the BMC; none: that of this machine")
    user: str | None = option(None, "user to log in as, with host")
    password_env: str = option("IPMI_PASSWORD", "environment variable that holds the password")
    command: str = option("ipmitool", "path of the program")
    period_s: float = option(0.5, "time between two reads [s]")
    update_period_s: float = option(1.0, "time between two new values of the BMC [s]")
    timeout_s: float = option(5.0, "longest wait for an answer [s]")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        for name in ("period_s", "update_period_s", "timeout_s"):
            if not 0.05 <= getattr(self, name) <= 60.0:
                raise ValueError(f"{name}={getattr(self, name):g} must be from 0.05 to 60 s")
        if (self.host is None) != (self.user is None):
            raise ValueError("host=… and user=… go together")
        if self.host is not None and self.host.startswith("-"):
            raise ValueError(f"host={self.host!r} is no address")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """An answer of ``dcmi power reading``.

    Attributes:
        power_watts: Power at the reading [W].
        active: Whether the BMC says that it measures.
        sampling_s: Time that its lowest, highest and mean power are over [s], None if not told.
        stamp: The BMC's own time, as it writes it; not used, since its clock is seldom set.
    """

    power_watts: float
    active: bool
    sampling_s: float | None
    stamp: str


def parse_reading(text: str) -> PowerReading | None:
    """Read what ipmitool printed; None if there is no power in it."""
    power = re.search(r"Instantaneous power reading:\s*(\d+(?:\.\d+)?)\s+Watts", text)
    if power is None:
        return None
    state = re.search(r"Power reading state is:\s*(\w+)", text)
    sampling = re.search(r"Sampling period:\s*(\d+)\s+Seconds", text)
    # Some versions print the next line right behind the stamp.
    stamp = re.search(r"IPMI timestamp:\s*(.*?)\s*(?:Sampling period|$)", text, re.MULTILINE)
    return PowerReading(
        power_watts=float(power[1]),
        active=state is not None and state[1] == "activated",
        sampling_s=float(sampling[1]) if sampling and int(sampling[1]) else None,
        stamp=stamp[1] if stamp else "",
    )


class IpmiMeter(PolledMeter):
    """Reads the power of a whole server from its management controller (ipmitool, DCMI)."""

    Options = IpmiOptions

    def __init__(self, options: IpmiOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Ask once.

        Raises:
            MeterError: If there is no power, with the way out.
        """
        return _Bmc(self._options)


class _Bmc(Source):
    def __init__(self, options: IpmiOptions) -> None:
        self._options = options
        self._password = _password(options)
        reading = self._ask()
        if reading.power_watts == 0:
            raise MeterError(
                f"{self._who()} answers 0 W: there is no power sensor behind it",
                "Try --meter redfish,url=https://BMC.",
            )
        prefix = "" if options.host is None else f"{options.host}/"
        over = f", statistics over {reading.sampling_s:g} s" if reading.sampling_s else ""
        domain = EnergyDomain(
            name=f"{prefix}node:0",
            meter="ipmi",
            quantity="power",
            kind="integrated",
            boundary="node",
            current="ac",
            devices=(options.host or "bmc",),
            method=f"DCMI power reading of {self._who()}{over}",
            update_period_s=options.update_period_s,
            coverage_fraction=None,
            gain_half_width_fraction=GAIN,
            offset_half_width_watts=OFFSET_WATTS,
            on_client_host=options.host is None,
            host=options.host,
        )
        self.domains = (domain,)

    def read(self, now_s: Clock) -> list[Reading]:
        return [bracketed(now_s, self.domains[0].name, lambda: self._ask().power_watts)]

    def _who(self) -> str:
        return f"the BMC {self._options.host}" if self._options.host else "this machine's BMC"

    def _ask(self) -> PowerReading:
        text = self._run()
        reading = parse_reading(text)
        if reading is None:
            said = " ".join(text.split())[:200] or "nothing"
            fixes = (fix for pattern, fix in _FIX if re.search(pattern, text, re.IGNORECASE))
            fix = next(fixes, None)
            raise MeterError(
                f"{self._who()} gives no power; {self._options.command} says: {said}",
                fix and fix.format(password_env=self._options.password_env),
            )
        if not reading.active:
            raise MeterError(
                f"{self._who()} says that its power reading is deactivated",
                "Turn power measurement on in its settings. Some BMCs do so on `ipmitool dcmi "
                "power activate`, which also puts the stored power limit in force: look at "
                "`ipmitool dcmi power get_limit` first.",
            )
        return reading

    def _run(self) -> str:
        options = self._options
        login = ["-I", "lanplus", "-H", options.host, "-U", options.user or "", "-E"]
        command = [options.command, *(login if options.host else []), "dcmi", "power", "reading"]
        # The program prefers IPMITOOL_PASSWORD, which may belong to another BMC.
        environment = {k: v for k, v in os.environ.items() if k != "IPMITOOL_PASSWORD"}
        environment["LC_ALL"] = "C"
        if self._password is not None:
            environment["IPMI_PASSWORD"] = self._password
        try:
            done = subprocess.run(
                [str(part) for part in command],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=options.timeout_s,
                env=environment,
            )
        except FileNotFoundError as error:
            raise MeterError(
                f"{options.command} is not there", "sudo apt install ipmitool"
            ) from error
        except OSError as error:
            raise MeterError(f"{options.command} cannot be run: {error}") from error
        except subprocess.TimeoutExpired:
            # The exception holds the command and its output; neither belongs in a message.
            raise MeterError(
                f"{self._who()} did not answer within {options.timeout_s:g} s",
                "Raise timeout_s=…, or see whether the BMC can be reached.",
            ) from None
        text = done.stdout + done.stderr
        return text.replace(self._password, "…") if self._password else text


def _password(options: IpmiOptions) -> str | None:
    if options.host is None:
        return None
    found = os.environ.get(options.password_env)
    if not found:
        raise MeterError(
            f"the environment variable {options.password_env}, for the password of {options.user} "
            f"on {options.host}, is not set",
            f"read -rs {options.password_env} && export {options.password_env}",
        )
    return found
