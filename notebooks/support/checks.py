"""What the ``check_…`` helpers of the exercises share: they explain a wrong answer, and never raise."""

import functools
import inspect
from collections.abc import Callable

import numpy as np
import torch

TODO = "not answered yet"


class Unanswered(Exception):
    """The reader's function still returns None."""


def wrong(why: str) -> None:
    print(f"not yet: {why}")


def verdict(right: bool, why: str) -> None:
    return print("right") if right else wrong(why)


def expects(form: str, place: int = 0) -> Callable:
    """Return a decorator of a check that says what went wrong where the check cannot read an answer.

    An answer is a value or a function. ``None``, or a function that returns it, is not given yet.

    Args:
        form: what the value or the function's result should be, such as ``"one number"``.
        place: of the answer among the arguments of the check.
    """

    def decorate(check: Callable) -> Callable:
        wants_function = list(inspect.signature(check).parameters)[place] == "function"

        @functools.wraps(check)
        def explained(*arguments):
            answer = arguments[place]
            if answer is None:
                return print(TODO)
            if wants_function and not callable(answer):
                return wrong(f"expected a function that returns {form}, got {describe(answer)}")
            last = answer

            def recorded(*inputs):
                nonlocal last
                last = answer(*inputs)
                if last is None:
                    raise Unanswered
                return last

            handed = list(arguments)
            handed[place] = recorded if callable(answer) else answer
            try:
                return check(*handed)
            except Unanswered:
                return print(TODO)
            except Exception as error:
                if line := _line_of(answer, error):
                    return wrong(f"line {line} of your function raised {type(error).__name__}: {error}")
                return wrong(f"expected {form}, got {describe(last)}")

        return explained

    return decorate


def describe(value) -> str:
    """Return the form of a value in words.

    >>> describe(torch.zeros(2, 3)), describe((1, 2)), describe("a")
    ('a float32 tensor of shape [2, 3]', 'a tuple of 2', "'a' (str)")
    """
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {list(value.shape)}"
    if isinstance(value, list | tuple | set | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{str(value)[:40]!r} ({type(value).__name__})"


def as_number(value) -> float:
    """Return one number of a tensor, an array or a plain number; raise where it is none or several."""
    return float(np.asarray(value.detach() if isinstance(value, torch.Tensor) else value, float).reshape(()))


def as_array(value) -> np.ndarray:
    """Return a float array of a tensor, an array or a sequence."""
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value, float)


def _line_of(answer, error: Exception) -> int:
    """Return the line of the reader's function that raised, from 1 at its ``def``; 0 if another one did."""
    code, step, line = getattr(answer, "__code__", None), error.__traceback__, 0
    while step is not None:
        if code is not None and step.tb_frame.f_code is code:
            line = step.tb_lineno - code.co_firstlineno + 1
        step = step.tb_next
    return line
