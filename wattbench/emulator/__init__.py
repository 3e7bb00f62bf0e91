"""A machine of known timing and known energy, to measure against: in process and over HTTP."""

from wattbench.emulator.answer_faults import ANSWER_FAULTS, AnswerFault
from wattbench.emulator.device import EmulatedMachine, MachineSettings, Stream
from wattbench.emulator.faults import FAULTS, Fault, make_fault
from wattbench.emulator.sensors import Readings, Sensor, SensorOptions
from wattbench.emulator.timeline import Timeline
from wattbench.emulator.truth import RequestTruth, WindowTruth, truth

__all__ = [
    "ANSWER_FAULTS",
    "FAULTS",
    "AnswerFault",
    "EmulatedMachine",
    "Fault",
    "MachineSettings",
    "Readings",
    "RequestTruth",
    "Sensor",
    "SensorOptions",
    "Stream",
    "Timeline",
    "WindowTruth",
    "make_fault",
    "truth",
]
