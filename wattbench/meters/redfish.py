"""Power of a whole server from the Redfish service of its management controller (BMC).

Each chassis that has power is a domain. It is looked for in the order of the standard's ages:

    Chassis → EnvironmentMetrics: PowerWatts, else EnergykWh
            → PowerSubsystem → PowerSupplies → Metrics: InputPowerWatts, summed
            → Power: PowerControl[] → PowerConsumedWatts, the first, which is the whole chassis
            → Sensors: a power sensor named total, system, chassis or node

A chassis inside another one that has power is part of it (``Links.ContainedBy``). What a chassis is
(``ChassisType``) says what its power includes: a rack, a module of a server, else a node. Energy in
kWh is used only where there is no power: most controllers count it in steps of a watt-hour or more.

The password comes from an environment variable. It is sent over https to a server that proves
itself, or to this machine; ``verify=false`` and ``insecure=true`` give that up.

Prior on readings, unverified: a gain within ± 5 % and an offset within ± 5 W; makers of servers
state a few per cent, if anything.

Source: DMTF DSP0268, *Redfish Data Model Specification*, 2024 (Chassis, EnvironmentMetrics,
PowerSubsystem, PowerSupplyMetrics, Power, Sensor); DSP0266 for the protocol.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wattbench.core.energy import Boundary, EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.meters.http_page import (
    HttpStatusError,
    PageReader,
    checked_url,
    is_loopback,
    login_header,
    refusal,
)
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source
from wattbench.plugins import PluginContext, option

ROOT = "/redfish/v1/Chassis"
GAIN, OFFSET_WATTS = 0.05, 5.0
JOULES_PER_KWH = 3.6e6
BOUNDARIES_BY_TYPE: Mapping[str, Boundary] = {
    "Rack": "rack",
    "Module": "module",
    "Component": "module",
    "Card": "module",
    "Cartridge": "module",
}
WHOLE = re.compile(r"total|system|chassis|node", re.IGNORECASE)

Json = dict[str, Any]
Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedfishOptions:
    """Options of ``--meter redfish``."""

    url: str = option("https://127.0.0.1", "address of the BMC")
    user: str | None = option(None, "user to log in as; none: without a login")
    password_env: str = option("REDFISH_PASSWORD", "environment variable that holds the password")
    verify: bool = option(True, "whether an https server must prove itself")
    ca: str | None = option(None, "file of the authority that vouches for the BMC")
    insecure: bool = option(False, "allow http:// to another machine, password and all")
    boundary: Boundary | None = option(None, "what the power includes; none: as the type says")
    period_s: float = option(0.5, "time between two reads [s]")
    update_period_s: float = option(1.0, "time between two new values of the BMC [s]")
    timeout_s: float = option(5.0, "longest wait for an answer [s]")

    def __post_init__(self) -> None:
        """Refuse what cannot be read, or would give a password away."""
        parts = checked_url(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http" and not (self.insecure or is_loopback(host)):
            raise ValueError(
                f"url=http://{host} would carry the password in clear: use https://, "
                "or insecure=true"
            )
        if self.ca is not None and not Path(self.ca).is_file():
            raise ValueError(f"ca={self.ca!r} is no file")
        for name in ("period_s", "update_period_s", "timeout_s"):
            if not 0.05 <= getattr(self, name) <= 60.0:
                raise ValueError(f"{name}={getattr(self, name):g} must be from 0.05 to 60 s")


@dataclass(frozen=True, slots=True)
class _Figure:
    """Where a chassis shows its power or energy: pages, and the place in them; they are summed."""

    pages: tuple[str, ...]
    keys: Keys
    factor: float = 1.0


class RedfishMeter(PolledMeter):
    """Reads the power of a whole server from its management controller (Redfish)."""

    Options = RedfishOptions

    def __init__(self, options: RedfishOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Log in and find every chassis that has power.

        Raises:
            MeterError: If there is no answer or no power, with the way out.
        """
        service = _Service(self._options)
        try:
            return _Chassis(self._options, service)
        except BaseException:
            service.close()
            raise


class _Service:
    """Documents of one Redfish service."""

    def __init__(self, options: RedfishOptions) -> None:
        self._options = options
        headers = {"Accept": "application/json"}
        if options.user is not None:
            headers |= login_header(options.user, options.password_env)
        self._reader = PageReader(
            options.url, None, options.timeout_s, headers=headers, tls=_tls(options)
        )

    def close(self) -> None:
        self._reader.close()

    def get(self, path: str) -> Json:
        """One document.

        Raises:
            MeterError: If it cannot be had, with the way out.
        """
        try:
            text = self._reader.text(path)
        except HttpStatusError as error:
            if error.status not in (401, 403):
                raise
            raise refusal(error, self._options.user, self._options.password_env) from error
        except MeterError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                fix = "Add ca=FILE with the authority that vouches for it, or verify=false."
                raise MeterError(error.reason, fix) from error
            fix = f"See whether it can be reached: curl -k {self._options.url}/redfish/v1"
            raise MeterError(error.reason, fix) from error
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise MeterError(f"{self._options.url}{path} is no Redfish document: {text[:80]!r}")
        return document

    def find(self, path: str | None) -> Json:
        """A document that need not be there; empty if it is not."""
        if path is None:
            return {}
        try:
            return self.get(path)
        except HttpStatusError:
            return {}

    def members(self, path: str | None) -> list[str]:
        """Paths of the members of a collection."""
        listed = self.find(path).get("Members") or []
        return [found for member in listed if (found := _link(member))]


class _Chassis(Source):
    """Every chassis of a service that has power."""

    def __init__(self, options: RedfishOptions, service: _Service) -> None:
        self._service, self._options = service, options
        documents = {path: service.get(path) for path in service.members(ROOT)}
        figures = {path: _figure(service, chassis) for path, chassis in documents.items()}
        self._figures = {path: figure for path, figure in figures.items() if figure is not None}
        if not self._figures:
            seen = ", ".join(sorted(_id(path) for path in documents)) or "none"
            raise MeterError(
                f"{options.url} answers, but no chassis has power or energy (chassis: {seen})",
                "See whether this is the BMC's address and the server is on; or try --meter ipmi.",
            )
        self._names = {path: self._name(path) for path in self._figures}
        self.domains = [self._domain(path, documents) for path in self._figures]

    def close(self) -> None:
        self._service.close()

    def read(self, now_s: Clock) -> list[Reading]:
        readings: list[Reading] = []
        failure: MeterError | None = None
        for path, figure in self._figures.items():
            before_s = now_s()
            try:
                values = [_number(self._service.get(page), figure.keys) for page in figure.pages]
            except MeterError as error:
                failure = error
                continue
            known = [value for value in values if value is not None]
            if len(known) == len(values):  # a sum of some supplies would be another power
                time_s = (before_s + now_s()) / 2
                readings.append(Reading(self._names[path], time_s, sum(known) * figure.factor))
        if not readings:
            raise failure or MeterError(f"{self._options.url} gives no power any more")
        return readings

    def _name(self, path: str) -> str:
        return f"{urlsplit(self._options.url).hostname}/chassis:{_id(path)}"

    def _domain(self, path: str, documents: Mapping[str, Json]) -> EnergyDomain:
        chassis, figure = documents[path], self._figures[path]
        counter = figure.factor != 1.0
        boundary = self._options.boundary or BOUNDARIES_BY_TYPE.get(
            str(chassis.get("ChassisType")), "node"
        )
        outer = next((p for p in _around(path, documents) if p in self._figures), None)
        return EnergyDomain(
            name=self._names[path],
            meter="redfish",
            quantity="energy_counter" if counter else "power",
            kind="counter" if counter else "integrated",
            boundary=boundary,
            current="ac" if boundary in ("node", "rack", "facility") else None,
            devices=(_id(path),),
            parent=None if outer is None else self._names[outer],
            method=f"{'/'.join(map(str, figure.keys))} of {', '.join(figure.pages)}",
            update_period_s=self._options.update_period_s,
            coverage_fraction=1.0 if counter else None,
            gain_half_width_fraction=GAIN,
            offset_half_width_watts=OFFSET_WATTS,
            host=urlsplit(self._options.url).hostname,
        )


def _figure(service: _Service, chassis: Json) -> _Figure | None:
    """Where a chassis shows power, else energy; None if nowhere."""
    for figure in _candidates(service, chassis):
        values = [_number(service.find(page), figure.keys) for page in figure.pages]
        if values and None not in values:
            return figure
    return None


def _candidates(service: _Service, chassis: Json) -> Iterator[_Figure]:
    page = _link(chassis.get("EnvironmentMetrics"))
    if page is not None:
        yield _Figure((page,), ("PowerWatts", "Reading"))
    subsystem = service.find(_link(chassis.get("PowerSubsystem")))
    supplies = service.members(_link(subsystem.get("PowerSupplies")))
    fitted = [supply for path in supplies if not _absent(supply := service.find(path))]
    metrics = [_link(supply.get("Metrics")) for supply in fitted]
    yield _Figure(tuple(filter(None, metrics)), ("InputPowerWatts", "Reading"))
    power = _link(chassis.get("Power"))
    for index, control in enumerate(service.find(power).get("PowerControl") or []):
        if power and isinstance(control, dict):
            yield _Figure((power,), ("PowerControl", index, "PowerConsumedWatts"))
    for sensor in service.members(_link(chassis.get("Sensors"))):
        name = _id(sensor)
        named = "power" in name.lower() and WHOLE.search(name)
        if named and service.find(sensor).get("ReadingType", "Power") == "Power":
            yield _Figure((sensor,), ("Reading",))
    if page is not None:
        yield _Figure((page,), ("EnergykWh", "Reading"), JOULES_PER_KWH)


def _absent(supply: Json) -> bool:
    """Whether a bay for a power supply is empty."""
    status = supply.get("Status")
    return isinstance(status, dict) and status.get("State") == "Absent"


def _around(path: str, documents: Mapping[str, Json]) -> Iterator[str]:
    """The chassis that a chassis stands in, the nearest first."""
    seen = {path}
    while True:
        links = documents.get(path, {}).get("Links", {})
        outer = _link(links.get("ContainedBy")) if isinstance(links, dict) else None
        if outer is None or outer in seen:
            return
        seen.add(outer)
        yield outer
        path = outer


def _link(value: object) -> str | None:
    """The path that a reference names."""
    path = value.get("@odata.id") if isinstance(value, dict) else None
    return path.rstrip("/") or None if isinstance(path, str) and path.startswith("/") else None


def _id(path: str) -> str:
    return path.rpartition("/")[2]


def _number(document: object, keys: Keys) -> float | None:
    """The number at a place of a document, None if there is none."""

    def inside(value: Any, key: str | int) -> Any:
        try:
            return value[key]
        except (KeyError, IndexError, TypeError):
            return None

    found: Any = reduce(inside, keys, document)
    return float(found) if isinstance(found, int | float) and found is not True else None


def _tls(options: RedfishOptions) -> ssl.SSLContext | None:
    if not options.url.startswith("https:"):
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca)
    except (OSError, ValueError) as error:
        raise MeterError(f"ca={options.ca!r} holds no certificate: {error}") from error
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
