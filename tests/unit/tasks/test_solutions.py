import pytest

from rloop.tasks.solutions import boxed_answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{2}$.", "2"),
        (r"so $\boxed 2$.", "2"),
        (r"so $\boxed2$.", "2"),
        (r"so $\boxed 24$.", "24"),
        (r"so $\boxed -24$.", "-24"),
        (r"so $\boxed\frac12$", r"\frac12"),
        (r"so \[\boxed x + 1.\]", "x + 1"),
        (r"it is \boxed 2. Bye", "2"),
        (r"so $\fbox{5}$", "5"),
        (r"so $\boxed {\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"so $\boxed{\boxed{7}}$", "7"),
        (r"so $\boxed{7.}$", "7"),
        (r"so $\boxed{1, 2, ...}$", "1, 2, ..."),
        (r"so $\boxed{\{1\}}$", r"\{1\}"),
    ],
)
def test_one_box_is_read_with_and_without_braces(solution, answer):
    assert boxed_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
        (r"$\boxed 1$, $\boxed 2$", "1, 2"),
        (r"$x = \boxed{1} \text{ or } x = \boxed{-2}.$", "1, -2"),
        (r"$\boxed{a},\quad \boxed{b}, \text{and} \boxed{c}$", "a, b, c"),
        (r"first $\boxed{5}$, and again: so it is $\boxed{5}$", "5"),
        (r"$\boxed{}$ and then $\boxed{5}$", "5"),
        (r"$\boxed{3}$ apples, so $\boxed{6}$ in all", None),
        (r"$\boxed{\frac{2}{4}} = \boxed{\frac{1}{2}}$", None),
    ],
)
def test_several_boxes_are_one_answer_of_all_parts_or_none_never_a_part(solution, answer):
    assert boxed_answer(solution) == answer


@pytest.mark.parametrize("solution", ["", "so it is 5", r"$\boxed{5", r"$\boxed{ }$", r"\boxedx 5"])
def test_without_a_whole_box_there_is_no_answer(solution):
    assert boxed_answer(solution) is None
