"""What the processor can do at best bounds what the native loop does."""

import pytest

from bac.native import build, rates
from bac.native.levels import choose_level, usable_levels
from tests.bac.tiny_policies import needs_compiler

pytestmark = needs_compiler


def test_arithmetic_is_measured_at_the_level_that_runs(monkeypatch):
    levels = usable_levels(build.library())
    if len(levels) < 2:
        pytest.skip("this processor has one level")
    measured = {}
    for level in (levels[0], levels[-1]):
        monkeypatch.setenv("BAC_LEVEL", level.name)
        measured[level.name] = rates.arithmetic("float")
    assert measured[levels[-1].name] > measured[levels[0].name] > 0  # several times, on a machine of one's own


@pytest.mark.parametrize("form", ["bfloat", "byte"])
def test_rounded_products_are_measured_where_they_can_run(form):
    if form not in choose_level(build.library()).formats:
        pytest.skip(f"this processor does not multiply {form}")
    assert rates.arithmetic(form) > 0  # how much faster they are depends on what else the machine does


def test_reading_is_measured_near_and_far():
    assert rates.reading(rates.IN_CACHE) > 0 and rates.reading(256 << 20, repeats=3) > 0


def test_what_cannot_be_measured_is_refused(monkeypatch):
    monkeypatch.setenv("BAC_LEVEL", "baseline")
    with pytest.raises(build.NativeError, match="level baseline cannot measure"):
        rates.arithmetic("bfloat")
    with pytest.raises(build.NativeError, match="1,000 bytes"):
        rates.reading(1000)
    with pytest.raises(ValueError, match=r"threads must lie in 1..1024"):
        rates.reading(1 << 20, threads=0)
