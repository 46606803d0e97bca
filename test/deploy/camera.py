"""A camera in a process of its own: raw pictures of 1920x1080, until it is ended.

Its first line of output names the shared memory that it sends from, with sizes in bytes.
"""

from array import array
import json
import os
import re
import time

from owled_ros.ros import qos
import rclpy
from sensor_msgs.msg import Image

WIDTH, HEIGHT = 1920, 1080
PERIOD = 0.1    # s
SEGMENT = re.compile(r'/dev/shm/(?:fastdds|fastrtps)_[0-9a-f]{16}$', re.MULTILINE)


def shared_memory():
    with open('/proc/self/maps') as maps:
        return {path: os.path.getsize(path) for path in set(SEGMENT.findall(maps.read()))}


def main():
    rclpy.init()
    node = rclpy.create_node('camera')
    pictures = node.create_publisher(Image, 'image', qos.IMAGE)
    picture = Image(width=WIDTH, height=HEIGHT, step=3 * WIDTH, encoding='rgb8')
    picture.data = array('B', bytes(3 * WIDTH * HEIGHT))
    print(json.dumps(shared_memory()), flush=True)
    while True:
        picture.header.stamp = node.get_clock().now().to_msg()
        pictures.publish(picture)
        time.sleep(PERIOD)


if __name__ == '__main__':
    main()
