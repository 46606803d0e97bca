"""What is read of a machine: a PC, a Jetson, one with a GPU, and one that tells nothing."""

import os
import sys
from types import ModuleType

from owled_ros.ros.machine import Health, Machine
import pytest


def write(root, **files):
    for path, text in files.items():
        file = root.joinpath(*path.split('__'))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'{text}\n')


@pytest.fixture
def jetson(tmp_path):
    root = tmp_path / 'sys' / 'class'
    write(root, thermal__thermal_zone0__type='cpu-thermal', thermal__thermal_zone0__temp=48250,
          thermal__thermal_zone1__type='gpu-thermal', thermal__thermal_zone1__temp='',
          hwmon__hwmon0__name='ina3221', hwmon__hwmon0__in1_label='VDD_IN',
          hwmon__hwmon0__in1_input=5000, hwmon__hwmon0__curr1_input=1500,
          hwmon__hwmon0__curr2_input=100)
    return tmp_path / 'sys'


def test_a_jetson(jetson, tmp_path):
    proc = tmp_path / 'proc'
    write(proc, self__statm='900 100 5', **{'77__statm': '800 70 5'},
          meminfo='MemTotal: 1000 kB\nMemAvailable: 250 kB',
          self__task__1__comm='a', self__task__2__comm='b', self__fd__0='')
    health = Machine(jetson, proc).health()
    assert health.temperatures == {'cpu-thermal': 48.25}  # the other zone sleeps
    assert health.powers == {'ina3221 VDD_IN': 7.5}       # the other rail has no voltage
    assert health.memory == 100 * os.sysconf('SC_PAGE_SIZE')
    assert (health.free_memory, health.threads, health.files) == (0.25, 2, 1)
    assert health.model_memory == 0
    assert Machine(jetson, proc).health(77).model_memory == 70 * os.sysconf('SC_PAGE_SIZE')
    assert Machine(jetson, proc).health(78).model_memory == 0  # it has ended


def test_a_pc(tmp_path):
    write(tmp_path / 'class', hwmon__hwmon3__name='coretemp', hwmon__hwmon3__temp1_input=61000,
          hwmon__hwmon3__temp1_label='Package id 0', hwmon__hwmon4__name='amdgpu',
          hwmon__hwmon4__power1_average=12000000, hwmon__hwmon4__curr1_input=9,
          hwmon__hwmon4__in1_input=9)
    health = Machine(tmp_path).health()
    assert health.temperatures == {'coretemp Package id 0': 61.0}
    assert health.powers == {'amdgpu power1': 12.0}


def test_this_machine_tells_of_this_process():
    health = Machine().health()
    assert health.memory > 10**7 and 0 < health.free_memory < 1
    assert health.threads >= 1 and health.files >= 3


def test_a_machine_that_tells_nothing(tmp_path):
    assert Machine(tmp_path / 'sys', tmp_path / 'proc').health() == Health()


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch):
    """Two GPUs, of which the second does not measure its power."""
    module = ModuleType('pynvml')
    module.NVMLError, module.NVML_TEMPERATURE_GPU = NVMLError, 0
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetCount = lambda: 2
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetTemperature = lambda gpu, sensor: 40 + gpu

    def power(gpu):
        if gpu == 1:
            raise NVMLError('not supported')
        return 71500

    module.nvmlDeviceGetPowerUsage = power
    monkeypatch.setitem(sys.modules, 'pynvml', module)
    return module


def test_nvidia_gpus(nvml, tmp_path):
    health = Machine(tmp_path, tmp_path).health()
    assert health.temperatures == {'gpu0': 40.0, 'gpu1': 41.0}
    assert health.powers == {'gpu0': 71.5}


def test_nvml_without_a_driver(nvml, tmp_path):
    def no_driver():
        raise NVMLError('driver not loaded')

    nvml.nvmlInit = no_driver
    assert Machine(tmp_path, tmp_path).health() == Health()
