"""Times are the thread's own, one for each architecture, of networks that are left as they are."""

import copy
import time

import pytest
import torch
from toys import network, same, trained

from i2i_lib.config import ResnetConfig, cat_spade_teacher, cat_teacher
from i2i_lib.export.speed import measure_speed, time_in_turn
from i2i_lib.results import FUSED, PLAIN, RUNTIME


def busy(seconds: float) -> None:
    """Compute for this long, by the thread's own clock."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_only_the_time_of_the_own_thread_counts():
    found = time_in_turn({"asleep": lambda: time.sleep(0.03), "busy": lambda: busy(0.01)}, repeats=3)
    assert found["asleep"] < 5, "of 30 ms, none of which computes"
    assert 10 <= found["busy"] < 15


def test_the_networks_take_turns_on_one_thread_after_a_warm_up():
    calls, threads = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        time_in_turn(
            {name: lambda name=name: calls.append((name, torch.get_num_threads())) for name in "ab"}, repeats=2
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert calls == [("a", 1), ("b", 1)] * 5
    first = iter([0.05] * 3)
    found = time_in_turn({"cold": lambda: busy(next(first, 0))}, repeats=2)
    assert found["cold"] < 5, "what the first passes prepare is not counted"


def test_an_architecture_is_timed_once():
    teacher, student = cat_teacher(4, 3), cat_teacher(2, 3)
    networks = {"teacher": trained(teacher), "gcka": trained(student), "none": trained(student, 1)}
    before = copy.deepcopy(networks)
    found = measure_speed(networks, (16, 24, (16, 24), 16), repeats=1)
    assert (found["device"], found["repeats"]) == ("cpu", 1)
    assert {(row["network"], *row["same"]) for row in found["rows"]} == {("teacher",), ("gcka", "none")}
    timed = [(row["network"], tuple(row["size"]), row["way"]) for row in found["rows"]]
    assert len(timed) == len(set(timed)) == 2 * 3 * 3
    assert {size for _, size, _ in timed} == {(16, 16), (24, 24), (16, 24)}
    assert all(row["ms"] > 0 for row in found["rows"])
    assert all(same(networks[name], before[name]) for name in networks)
    assert all(p.is_contiguous() for p in networks["gcka"].parameters())


@pytest.mark.parametrize(
    ("config", "ways"),
    [(ResnetConfig(4, 3), {PLAIN, FUSED, RUNTIME}), (cat_spade_teacher(2, 4, 2), {PLAIN})],
    ids=["resnet", "spade"],
)
def test_the_uncompressed_runs_in_the_ways_of_its_student_where_it_can(config, ways):
    found = measure_speed({"original": network(config).eval()}, [16], repeats=1)
    assert {row["way"] for row in found["rows"]} == ways
