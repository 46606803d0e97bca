"""Bags: damaged bytes of any kind end in a UserError, or in samples that are whole."""

from pathlib import Path
import shutil
import sys
import tempfile

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutations import mutated  # noqa: E402, I100
from owled_ros.bags.samples import Drive, Source  # noqa: E402
from owled_ros.bags.writing import DriveWriter, ODOM_TOPIC  # noqa: E402
from owled_ros.driver.action import EgoState  # noqa: E402
from owled_ros.errors import UserError  # noqa: E402

SOURCE = Source(image_topic='/camera/image_raw', odom_topic=ODOM_TOPIC)
SECOND = 10**9


@pytest.fixture(scope='session')
def recorded(tmp_path_factory):
    """Return {storage: bag} of two short drives, mcap and sqlite3."""
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    folder = tmp_path_factory.mktemp('bags')
    picture = np.random.default_rng(0)
    with DriveWriter(folder / 'first') as writer:
        for tick in range(60):
            stamp = 10 * SECOND + tick * SECOND // 20
            writer.write_odometry(stamp, (0.0, 0.0, 0.0), EgoState(5.0))
            if tick % 10 == 0:
                writer.write_frame(stamp, picture.integers(0, 256, (12, 16, 3), np.uint8))
    bags = {}
    for storage in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        path = bags[storage.name] = folder / storage.name.lower()
        with Reader(folder / 'first') as reader, \
                Writer(path, version=9, storage_plugin=storage) as writer:
            out = {c.id: writer.add_connection(c.topic, c.msgtype, msgdef=c.msgdef.data,
                                               rihs01=c.digest)
                   for c in reader.connections}
            for connection, stamp, data in reader.messages():
                writer.write(out[connection.id], stamp, data)
    assert all(read(path) for path in bags.values())
    return bags


def read(path):
    """Return the number of samples in a bag."""
    count = 0
    for sample in Drive(path, SOURCE).samples():
        height, width, channels = sample.frame.shape
        assert channels == 3 and height * width <= 7680 * 4320
        assert sample.ego.is_finite()
        count += 1
    return count


def read_or_refuse(path):
    try:
        read(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
@given(data=st.data())
def test_damaged_recordings(bounded, recorded, storage, data):
    bag = recorded[storage]
    part = next(path for path in bag.iterdir() if path.suffix != '.yaml')
    content = data.draw(mutated(part.read_bytes()))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, 'bag')
        shutil.copytree(bag, copy)
        (copy / part.name).write_bytes(content)
        with bounded():
            read_or_refuse(copy)


@given(data=st.data())
def test_damaged_metadata(bounded, recorded, data):
    bag = recorded['MCAP']
    content = data.draw(mutated((bag / 'metadata.yaml').read_bytes(), most=3))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, 'bag')
        shutil.copytree(bag, copy)
        (copy / 'metadata.yaml').write_bytes(content)
        with bounded():
            read_or_refuse(copy)


@pytest.mark.parametrize('name', ['../outside.mcap', '/etc/passwd', '../../etc/passwd'])
def test_metadata_cannot_lead_out_of_the_bag(recorded, tmp_path, name):
    """A bag that names a recording elsewhere does not get it read."""
    copy = tmp_path / 'bag'
    shutil.copytree(recorded['MCAP'], copy)
    part = next(path for path in copy.iterdir() if path.suffix == '.mcap')
    shutil.move(part, tmp_path / 'outside.mcap')
    metadata = copy / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(part.name, name))
    with pytest.raises(UserError, match='missing'):
        read(copy)
