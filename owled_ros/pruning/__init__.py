"""Samples and a model in, a sparser model and its report out. Knows neither ROS nor bags."""

from owled_ros.pruning.pipeline import prune
from owled_ros.pruning.settings import PruningSettings
from owled_ros.pruning.shards import hash_weights

__all__ = ['PruningSettings', 'hash_weights', 'prune']
