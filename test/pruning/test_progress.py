"""The time left, as it is told while a model is pruned."""

from owled_ros.pruning import progress, prune, PruningSettings
from owled_ros.pruning.progress import Forecast
import pytest


def told(elapsed, done, total=10.0):
    now = [100.0]
    forecast = Forecast(total, lambda: now[0])
    forecast.add(done)
    now[0] += elapsed
    return forecast.left()


def test_the_time_left():
    assert told(60.0, 1.0) == ', about 9 min left'
    assert told(60.0, 9.0) == ', less than a minute left'
    assert told(3600.0, 2.5) == ', about 3.0 h left'
    assert told(60.0, 0.1) == told(1.0, 5.0) == ''     # too early to tell
    assert told(60.0, 11.0) == ', less than a minute left'


def test_what_was_done_before_is_not_forecast():
    now = [0.0]
    forecast = Forecast(4.0, lambda: now[0])
    forecast.skip(2.0)
    forecast.add(1.0)
    now[0] = 120.0
    assert forecast.left() == ', about 2 min left'


@pytest.mark.parametrize('settings', [
    {}, {'components': 'language'}, {'allocation': 'alphapruning'},
    {'allocation': 'owl', 'statistics': 'sequential'},
    {'allocation': 'ablation', 'statistics': 'sequential'},
    {'allocation': 'uniform', 'statistics': 'sequential'}])
def test_all_work_is_forecast(llava_dir, samples, tmp_path, monkeypatch, settings):
    """At the end as much is done as was expected, and every block tells the time left."""
    made = []

    class Kept(Forecast):

        def __init__(self, total):
            super().__init__(total)
            made.append(self)

    monkeypatch.setattr(progress, 'TELLING_AFTER', 0.0)
    monkeypatch.setattr('owled_ros.pruning.pipeline.Forecast', Kept)
    lines = []
    prune(llava_dir, samples, PruningSettings(**settings), tmp_path / 'out', progress=lines.append)
    assert made[0]._done == pytest.approx(made[0]._total)
    assert all('left' in line for line in lines if 'pruning' in line and '(1/' not in line)
