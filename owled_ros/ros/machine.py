"""What the machine tells of itself: memory, temperatures, power. Read from Linux and NVML.

Only what is there is told. On a Jetson the temperatures are thermal zones and the power is that
of the rails of its INA3221 monitors; elsewhere it is what hwmon has. Imports no ROS.
"""

from dataclasses import dataclass, field
import os
from pathlib import Path

MILLI, MICRO = 1e-3, 1e-6


@dataclass(frozen=True)
class Health:
    """One look at the machine; temperatures [degrees C] and powers [W] by name.

    memory: resident bytes of this process; model_memory: of the model's, 0 without one;
    free_memory: 0 to 1, share of the machine's that is available, None where it is not told.
    """

    memory: int = 0
    model_memory: int = 0
    free_memory: float | None = None
    threads: int = 0
    files: int = 0
    temperatures: dict = field(default_factory=dict)
    powers: dict = field(default_factory=dict)


class Machine:
    """Looks at this machine and process; what cannot be read is left out."""

    def __init__(self, sys=Path('/sys'), proc=Path('/proc')):
        self._sys, self._proc = Path(sys), Path(proc)
        self._gpus = _open_gpus()

    def health(self, model_process=None):
        """Return the Health of this moment; model_process: its id, where it has its own."""
        temperatures, powers = self._zones(), {}
        for chip in sorted(self._sys.glob('class/hwmon/hwmon*')):
            temperatures |= _chip_temperatures(chip)
            powers |= _chip_powers(chip)
        for index, gpu in enumerate(self._gpus):
            gpu(f'gpu{index}', temperatures, powers)
        process = self._proc / 'self'
        return Health(
            memory=self._resident('self'),
            model_memory=self._resident(str(model_process)) if model_process else 0,
            free_memory=self._free_memory(),
            threads=_entries(process / 'task'), files=_entries(process / 'fd'),
            temperatures=temperatures, powers=powers)

    def _zones(self):
        zones = {}
        for zone in sorted(self._sys.glob('class/thermal/thermal_zone*')):
            value = _number(zone / 'temp')
            if value is not None:
                name = _text(zone / 'type') or zone.name
                zones[name if name not in zones else f'{name} {zone.name}'] = value * MILLI
        return zones

    def _resident(self, process):
        words = _text(self._proc / process / 'statm').split()
        return int(words[1]) * os.sysconf('SC_PAGE_SIZE') if len(words) > 1 else 0

    def _free_memory(self):
        sizes = {}
        for line in _text(self._proc / 'meminfo').splitlines():
            name, _, rest = line.partition(':')
            sizes[name] = rest.split()[0] if rest.split() else ''
        try:
            return int(sizes['MemAvailable']) / int(sizes['MemTotal'])
        except (KeyError, ValueError, ZeroDivisionError):
            return None


def _chip_temperatures(chip):
    return {f'{_text(chip / "name")} {_label(path)}': value * MILLI
            for path in sorted(chip.glob('temp*_input'))
            if (value := _number(path)) is not None}


def _chip_powers(chip):
    """Power of each rail [W]: measured, or voltage times current as an INA3221 gives them."""
    powers = {}
    for path in sorted([*chip.glob('power*_input'), *chip.glob('power*_average')]):
        value = _number(path)
        if value is not None:
            powers[f'{_text(chip / "name")} {_label(path)}'] = value * MICRO
    if powers:
        return powers
    for path in sorted(chip.glob('curr*_input')):
        volts = path.with_name(path.name.replace('curr', 'in'))
        milliamperes, millivolts = _number(path), _number(volts)
        if milliamperes is not None and millivolts is not None:
            name = f'{_text(chip / "name")} {_label(volts)}'
            powers[name] = milliamperes * MILLI * millivolts * MILLI
    return powers


def _label(path):
    """Return the name that a chip's driver gives an input, else that of its file."""
    what = path.name.rpartition('_')[0]
    return _text(path.with_name(f'{what}_label')) or what


def _text(path):
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # sensors that sleep, and zones that are switched off
        return ''


def _number(path):
    try:
        return int(_text(path))
    except ValueError:
        return None


def _entries(folder):
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


def _open_gpus():
    """Return a function per NVIDIA GPU that adds to temperatures and powers; none without NVML."""
    try:
        import pynvml
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index)
                   for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # not installed, no driver, no permission: it tells nothing
        return []

    def reader(handle):
        def read(name, temperatures, powers):
            for into, ask in (
                    (temperatures, lambda: float(pynvml.nvmlDeviceGetTemperature(
                        handle, pynvml.NVML_TEMPERATURE_GPU))),
                    (powers, lambda: pynvml.nvmlDeviceGetPowerUsage(handle) * MILLI)):
                try:
                    into[name] = ask()
                except pynvml.NVMLError:
                    pass  # this one does not measure it
        return read

    return [reader(handle) for handle in handles]
