"""The drawing of a plan: known answers, readable at 80 columns, in plain ASCII where asked for."""

from __future__ import annotations

import pytest

from affinity_cases import made_up_spec
from branchtune import LoRA, TaskTree
from branchtune.planning import describe_plan

LORA = LoRA(r=2, lora_alpha=4)
LEVELS = [(1000, 4), (800, 8), (600, 16), (400, 32)]
FORKED = TaskTree([[list("abcd")], [list("abcd")], [["a", "b"], ["c", "d"]], [["a", "b"], ["c"], ["d"]]])
MANY = [f"task_{i:02}" for i in range(32)]
LONG = "surface_normals_of_the_whole_scene_in_camera_coordinates"


def drawn(tree: TaskTree, **options: bool) -> str:
    return "\n" + describe_plan(tree, made_up_spec(LEVELS[: tree.num_levels], stem=200), LORA, **options) + "\n"


def test_forks_are_indented_and_levels_without_one_are_not() -> None:
    assert (
        drawn(FORKED)
        == """
tree        level  parameters   MACs   share
● image                     0    200    3.1%
● a b c d       0          16  1.02k   15.9%
● (same)        1          32    864   13.5%
├─● a b         2          64    792   12.4%
│ ● (same)      3         128    912   14.2%
└─● c d         2          64    792   12.4%
  ├─● c         3         128    912   14.2%
  └─● d         3         128    912   14.2%
total                     560  6.40k  100.0%
2.133 times the MACs of one backbone pass (3,000)
"""
    )


def test_plain_ascii() -> None:
    text = drawn(FORKED, ascii_only=True)
    assert text.isascii()
    assert text == drawn(FORKED).translate(str.maketrans("●├└│─", "o|`|-"))


def test_one_task() -> None:
    assert (
        drawn(TaskTree.shared(["depth"], 4))
        == """
tree      level  parameters   MACs   share
● image                   0    200    5.3%
● depth       0          16  1.02k   26.8%
● (same)      1          32    864   22.8%
● (same)      2          64    792   20.9%
● (same)      3         128    912   24.1%
total                   240  3.78k  100.0%
1.261 times the MACs of one backbone pass (3,000)
"""
    )


def test_one_level_that_forks_at_the_image() -> None:
    assert (
        drawn(TaskTree([[["depth", "edge"], ["semseg"]]]))
        == """
tree            level  parameters   MACs   share
● image                         0    200    9.0%
├─● depth edge      0          16  1.02k   45.5%
└─● semseg          0          16  1.02k   45.5%
total                          32  2.23k  100.0%
1.860 times the MACs of one backbone pass (1,200)
"""
    )


def test_thirty_two_tasks_are_wrapped_between_names() -> None:
    lines = drawn(TaskTree([[MANY], [MANY[:16], *([task] for task in MANY[16:])]])).splitlines()[1:]
    assert max(map(len, lines)) == 77
    assert lines[2] == "● task_00 task_01 task_02 task_03 task_04        0          16  1.02k    6.4%"
    assert lines[3] == "│ task_05 task_06 task_07 task_08 task_09"
    assert lines[9] == "├─● task_00 task_01 task_02 task_03 task_04      1          32    864    5.4%"
    assert lines[12] == "│   task_15"
    assert lines[-3] == "└─● task_31                                      1          32    864    5.4%"


def test_a_long_name_is_broken_and_nothing_of_it_is_lost() -> None:
    assert (
        drawn(TaskTree([[[LONG, "edge"]], [[LONG], ["edge"]]]))
        == """
tree                                            level  parameters   MACs   share
● image                                                         0    200    6.8%
● edge surface_normals_of_the_whole_scene_in_c      0          16  1.02k   34.5%
│ amera_coordinates
├─● edge                                            1          32    864   29.3%
└─● surface_normals_of_the_whole_scene_in_came      1          32    864   29.3%
    ra_coordinates
total                                                          80  2.94k  100.0%
1.472 times the MACs of one backbone pass (2,000)
"""
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_width_is_kept(width: int) -> None:
    tree = TaskTree([[MANY], [MANY[:20], MANY[20:]], [MANY[:9], MANY[9:20], MANY[20:]]])
    text = describe_plan(tree, made_up_spec(LEVELS[:3], stem=200), LORA, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert all(text.count(task) == 3 - (task >= MANY[20]) for task in MANY)
