"""One rosbag2 recording, sqlite3 or mcap, as a stream of messages."""

from pathlib import Path

from owled_ros.bags.types import COMPRESSED_IMAGE, IMAGE, typestore
from owled_ros.errors import UserError
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores

IDL_RULE = '=' * 80 + '\n'


class Bag:
    """An open recording; a context manager. Every failure is a UserError that names the bag."""

    def __init__(self, path):
        """Take a rosbag2 directory, or one .mcap or .db3 file of it."""
        self.path = Path(path)
        self._stores = {}

    def __enter__(self):
        if not self.path.exists():
            raise UserError(f'there is no bag at {self.path}; give a rosbag2 directory')
        if self.path.is_dir() and not (self.path / 'metadata.yaml').is_file():
            raise UserError(f'{self.path} is not a bag: it has no metadata.yaml; '
                            'give a rosbag2 directory, or run "ros2 bag reindex" on it')
        try:
            self.reader = Reader(self.path)
            self.reader.open()
        except Exception as error:  # whatever the parsers of foreign bytes stumble over
            raise self._unreadable(error) from None
        if self.reader.message_count == 0:
            self.reader.close()
            raise UserError(f'the bag {self.path} is empty; record it again')
        return self

    def __exit__(self, *failure):
        self.reader.close()

    @property
    def connections(self):
        """Return rosbags' connections: topic, msgtype, msgcount, ext.offered_qos_profiles."""
        return self.reader.connections

    @property
    def topics(self):
        """Topic name -> message type, of the topics that have messages."""
        topics = {c.topic: c.msgtype for c in self.connections if c.msgcount}
        return dict(sorted(topics.items()))

    def require(self, topic, *msgtypes):
        """Raise UserError unless the bag has messages on `topic`, of one of the types if any."""
        found = self.topics.get(topic)
        if found in msgtypes or (found and not msgtypes):
            return
        what = f'no messages on {topic}' if found is None else f'{found} on {topic}'
        where = f', where {" or ".join(msgtypes)} is needed' if msgtypes else ''
        have = ', '.join(f'{name} ({msgtype})' for name, msgtype in self.topics.items())
        raise UserError(f'the bag {self.path} has {what}{where}; it has {have}')

    def image_topic(self, topic):
        """Return the topic that carries the images of `topic`: itself, or its compressed one."""
        compressed = f'{topic.rstrip("/")}/compressed'
        if topic not in self.topics and self.topics.get(compressed) == COMPRESSED_IMAGE:
            return compressed
        self.require(topic, IMAGE, COMPRESSED_IMAGE)
        return topic

    def messages(self, *topics):
        """Yield (topic, message) in the order of recording."""
        for connection, _, data in self.raw_messages(*topics):
            yield connection.topic, self.decode(connection, data)

    def raw_messages(self, *topics, start=None):
        """Yield (connection, time of recording [ns], serialised bytes); no topics means all."""
        chosen = [c for c in self.connections if c.topic in topics or not topics]
        stream = self.reader.messages(chosen, start=start)
        while True:
            try:
                item = next(stream)
            except StopIteration:
                return
            except Exception as error:
                raise self._unreadable(error) from None
            yield item

    def decode(self, connection, data):
        """Return the message in `data`, by the definition that the bag holds of its type."""
        try:
            store = self._stores.get(connection.msgtype)
            if store is None:
                store = self._stores[connection.msgtype] = store_for(connection)
            return store.deserialize_cdr(data, connection.msgtype)
        except Exception as error:
            raise self._unreadable(error, f' on {connection.topic}') from None

    def _unreadable(self, error, where=''):
        cause = ' '.join(str(error).split()) or type(error).__name__
        return UserError(f'the bag {self.path} cannot be read{where}: {cause.rstrip(".")}')


def store_for(connection):
    """Return the types to decode a connection with: as recorded, else as they are today."""
    definition = connection.msgdef
    if definition.format == MessageDefinitionFormat.NONE:
        return typestore()
    store = get_typestore(Stores.EMPTY)
    if definition.format == MessageDefinitionFormat.MSG:
        store.register(get_types_from_msg(definition.data, connection.msgtype))
        return store
    for part in definition.data.split(IDL_RULE):
        if part.strip():
            text = part.partition('\n')[2] if part.startswith('IDL: ') else part
            store.register(get_types_from_idl(text))
    return store
