"""The C++ kernels under sanitizers, and for Arm in an emulator; the results are checked."""

from pathlib import Path
import shutil
import subprocess

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / 'owled_ros' / 'sparse' / 'kernels'
FLAGS = {
    'avx512.cpp': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx512vbmi2'],
    'avx2.cpp': ['-mavx2']}
ALL_X86 = ['-mfma', '-mf16c', '-mpopcnt', '-mbmi2']


def build(compiler, folder, *, x86, options):
    objects = []
    for source in [*sorted(KERNELS.glob('*.cpp')), HERE / 'exercise.cpp']:
        flags = FLAGS[source.name] + ALL_X86 if x86 and source.name in FLAGS else []
        objects.append(folder / f'{source.stem}.o')
        subprocess.run([compiler, '-std=c++17', '-O1', '-g', *options, *flags, '-I', KERNELS, '-c',
                        source, '-o', objects[-1]], check=True)
    subprocess.run([compiler, *options, *objects, '-o', folder / 'exercise'], check=True)
    return folder / 'exercise'


def exercise(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def test_no_kernel_leaves_its_buffers(tmp_path):
    options = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all']
    probe = tmp_path / 'probe.cpp'
    probe.write_text('int main() {}')
    compiler = shutil.which('g++')
    if not compiler or subprocess.run([compiler, *options, probe, '-o', tmp_path / 'probe'],
                                      capture_output=True).returncode:
        pytest.skip('no g++ with sanitizers')
    machine = subprocess.run([compiler, '-dumpmachine'], capture_output=True, text=True).stdout
    paths = exercise([build(compiler, tmp_path, x86='x86_64' in machine, options=options)])
    assert paths[-1] == 'portable'


def test_the_kernels_for_arm(tmp_path):
    compiler, emulator = map(shutil.which, ('aarch64-linux-gnu-g++', 'qemu-aarch64-static'))
    if not (compiler and emulator):
        pytest.skip('no cross compiler and emulator (g++-aarch64-linux-gnu, qemu-user-static)')
    program = build(compiler, tmp_path, x86=False, options=['-static'])
    assert exercise([emulator, program]) == ['neon', 'portable']
