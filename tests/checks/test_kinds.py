"""What a student's function may throw or return, in every exercise: the kind is named in one line, and no traceback of ours is shown."""
import math
import sys
import traceback

import numpy as np
import pytest
import torch

from m2kd_lite import checks
from m2kd_lite.checks import engine
from m2kd_lite.method.snapshots import Snapshots

NAMES = sorted(checks.EXERCISES)
LOSSES = ["distillation_loss", "auxiliary_loss"]
NUMBERS = ["average_incremental_accuracy", "forgetting", "annealed"]
PLANS = ["sequential_plan", "multi_model_plan"]
TENSORS = ["active", "herding", "nearest_mean", "aligned_rows", "soft_mask", "cumulative_mask", "free_gradient"]
NESTED = ["multi_model_targets", "prune", "reconstruct"]
LISTS = ["frontier"]
assert sorted(LOSSES + NUMBERS + PLANS + TENSORS + NESTED + LISTS) == NAMES


def message_of(name, function):
    with pytest.raises(checks.NotYet) as caught:
        getattr(checks, name)(function)
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and "\n" not in message and caught.value._render_traceback_() == [f"NotYet: {message}"]
    assert "Traceback" not in message and ".py" not in message
    return message.removeprefix(f"{name}: ")


def right(name):
    return checks.EXERCISES[name].reference


def returns(change):
    """The right answer, changed before it is returned."""
    return lambda name: lambda *arguments: change(right(name)(*arguments))


def each(change):
    """As `returns`, for each tensor and number of it, in whatever holds them."""
    def deep(thing):
        if isinstance(thing, dict):
            return {name: deep(part) for name, part in thing.items()}
        return type(thing)(map(deep, thing)) if isinstance(thing, (list, tuple)) else change(thing)
    return returns(deep)


def tensors_of(arguments):
    for argument in arguments:
        if isinstance(argument, Snapshots):
            yield from argument.weights.values()
        elif isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, dict):
            yield from argument.values()


# ---- what is given to the check -------------------------------------------------------------------------------------

class MyLoss:
    """A class where a function is wanted."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given, says", [
    (MyLoss, "give the check a function; this is the class MyLoss"),
    (torch.nn.BCELoss, "give the check a function; this is the class BCELoss"),
    ("distillation_loss", "give the check the function itself, without calling it; this is a str"),
    (torch.zeros(2), "give the check the function itself, without calling it; this is a tensor of shape (2,) and dtype float32"),
    (None, "give the check the function itself, without calling it; this is None"),
], ids=["a class", "a class of PyTorch", "a name", "a result", "nothing"])
def test_what_is_no_function_is_said(name, given, says):
    assert message_of(name, given) == f"{says}."


@pytest.mark.parametrize("name", NAMES)
def test_other_parameters_are_named(name):
    parameters = checks.EXERCISES[name].parameters
    wanted = f"it takes other arguments than {name}({', '.join(parameters)}): "

    def one_more(a, b=0, c=0, d=0, e=0, *, also):
        pass

    assert message_of(name, lambda: None) == f"{wanted}yours has ()."
    assert message_of(name, one_more) == f"{wanted}yours has (a, b=0, c=0, d=0, e=0, *, also)."
    assert message_of(name, eval(f"lambda {', '.join(parameters)}, more: None")) == f"{wanted}yours has ({', '.join(parameters)}, more)."
    if len(parameters) != 2:
        assert message_of(name, torch.nn.CosineSimilarity()).startswith(f"{wanted}yours has (x1")      # a network, which may be right


# ---- what is raised -------------------------------------------------------------------------------------------------

class MyError(Exception):
    """A student's own."""


def own_error(*arguments):
    raise MyError("not today,\nsorry")


def without_end(*arguments):
    return without_end(*arguments)


def leaves(*arguments):
    sys.exit("enough")


def another_device(*arguments):
    return torch.zeros(2, device="meta").tolist()


def too_large(*arguments):
    return torch.empty(10 ** 15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function, says", [
    (own_error, "it raised MyError: not today,, at line {line}: `raise MyError(\"not today,\\nsorry\")` (in \""),
    (without_end, "it calls itself without end: is there a case in which it does not? (at line {line}: `return without_end(*arguments)`)"),
    (leaves, "it ends the whole program, as `exit` does; `return` ends a function (at line {line}: `sys.exit(\"enough\")`)"),
    (another_device, "tensors lie on different devices: make yours where the arguments are, as `device=argument.device` does (at line {line}: "),
    (too_large, "it asks for more memory than there is: what are the shapes of what it works with? (at line {line}: `return torch.empty"),
])
def test_what_is_raised_is_told_with_the_students_line(name, function, says):
    line = function.__code__.co_firstlineno + 1
    assert message_of(name, function).startswith(says.format(line=line))


def test_the_words_of_pytorch_are_known_of_what_this_machine_cannot_do():
    """Two devices, and a GPU that is not there: as PyTorch words it, raised here by hand."""
    def raising(error):
        def function(*arguments):
            raise error
        return message_of("active", function)

    two = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    assert raising(RuntimeError(two)).startswith("tensors lie on different devices")
    for error in (AssertionError("Torch not compiled with CUDA enabled"), RuntimeError("Found no NVIDIA driver on your system.")):
        assert raising(error).startswith("it asks for a GPU, and there is none")


# ---- what is done in place ------------------------------------------------------------------------------------------

def rewrites(name):
    """The right answer, after every tensor among the arguments was written to, with the values that it had."""
    def function(*arguments):
        for tensor in tensors_of(arguments):
            tensor.mul_(1)
        return right(name)(*arguments)
    return function


def spoils(name):
    """The right answer; then the arguments are changed."""
    def function(*arguments):
        result = right(name)(*arguments)
        for argument in arguments:
            if isinstance(argument, list):
                argument.append(argument[0])
        for tensor in tensors_of(arguments):
            tensor.data.add_(1)
        return result
    return function


CHANGED = "it changed its argument `{}`, which its caller still needs as it was: work on a copy. Look at "


@pytest.mark.parametrize("name, argument", [("multi_model_targets", "images"), ("active", "mask"), ("herding", "features"),
                                            ("nearest_mean", "features")])
def test_an_argument_that_is_written_to_is_named_even_where_nothing_changes(name, argument):
    assert message_of(name, rewrites(name)).startswith(CHANGED.format(argument))


@pytest.mark.parametrize("name, argument", [
    ("average_incremental_accuracy", "top1"), ("forgetting", "accuracy_by_step"), ("distillation_loss", "logits"),
    ("auxiliary_loss", "logits"), ("multi_model_targets", "plan"), ("prune", "masks"), ("active", "mask"), ("herding", "features"),
    ("nearest_mean", "features")])
def test_a_right_answer_that_changes_its_arguments_is_not_passed_and_spoils_no_later_check(name, argument):
    assert message_of(name, spoils(name)).startswith(CHANGED.format(argument))
    getattr(checks, name)(right(name))


def test_the_table_has_its_own_words_where_arguments_belong_to_others():
    assert message_of("reconstruct", spoils("reconstruct")).startswith("it changed the snapshots themselves")
    assert message_of("reconstruct", rewrites("reconstruct")).startswith("it changed the snapshots themselves")
    assert message_of("prune", rewrites("prune")).startswith("the weights are parameters, which autograd watches")


WANTED = "it changes in place a tensor whose gradient is wanted (`x += 1`, `x[0] = 1` and `x.clamp_()` do that): make a new tensor (at line "
NEEDED = "it changes in place a tensor that backpropagation still needs (`x += 1`, `x[0] = 1` and `x.clamp_()` do that): make a new tensor. Look"


@pytest.mark.parametrize("name", LOSSES)
def test_what_breaks_autograd_is_told_in_words(name):
    def of(change):
        def function(logits, *rest):
            return change(logits, *rest)
        return message_of(name, function)

    def overwritten(logits, targets, *rest):
        scores = logits.sigmoid()
        loss = (scores * scores).sum()
        scores.clamp_(0, 1)
        return loss

    def clamped(logits, targets, *rest):
        loss = right(name)(logits, targets, *rest)
        targets.clamp_(0, 1)
        return loss

    def trained(logits, *rest):
        loss = right(name)(logits, *rest)
        loss.backward()
        return loss

    assert of(lambda logits, *rest: logits.sigmoid_().sum()).startswith(WANTED)
    assert of(lambda logits, *rest: logits[0].add_(1).sum()).startswith(WANTED)
    assert of(overwritten).startswith(NEEDED)
    soft = checks.EXERCISES[name].parameters[1]
    assert of(clamped).startswith(CHANGED.format(soft))
    assert of(trained).startswith(CHANGED.format("logits"))         # their `grad`
    assert of(lambda logits, *rest: right(name)(logits.requires_grad_(False), *rest)).startswith("no gradient reaches the logits")


@pytest.mark.parametrize("name", LOSSES)
def test_a_backward_of_its_own_is_told(name):
    def function(logits, *rest):
        copy = logits * 1
        loss = right(name)(copy, *rest)
        torch.autograd.grad(loss, copy)
        return loss
    assert message_of(name, function).startswith("it calls `backward` itself, which uses the graph up: give back the loss")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("make", [
    returns(torch.Tensor.detach), returns(lambda loss: torch.tensor(loss.item(), requires_grad=True)), lambda name: torch.no_grad()(right(name)),
    returns(lambda loss: torch.from_numpy(loss.detach().numpy()))], ids=["detach", "a new tensor", "no_grad", "numpy"])
def test_a_lost_gradient_is_named(name, make):
    assert message_of(name, make(name)).startswith("no gradient reaches the logits: the value was cut out of the graph")


# ---- what is returned -----------------------------------------------------------------------------------------------

def wanted(name, got):
    return f"it returned {got}; what is wanted is {checks.EXERCISES[name].returns}. "


@pytest.mark.parametrize("name", NAMES)
def test_nothing_returned(name, capsys):
    assert message_of(name, lambda *arguments: None).startswith("it returned None: is there a `return` at the end? Look at ")
    capsys.readouterr()
    printed = message_of(name, lambda *arguments: print("mine:", len(arguments)))
    assert printed.startswith("it returned None: is there a `return` at the end? What it printed is seen, but not handed back. Look at ")
    assert capsys.readouterr().out.count("mine:") == len(checks.EXERCISES[name].cases)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make, says", [
    (returns(lambda result: (part for part in [result])), "a generator", ),
    (returns(lambda result: lambda: result), "a function"),
    (returns(lambda result: "done"), "a str"),
    (returns(lambda result: {1, 2}), "a set"),
    (returns(lambda result: type("Odd", (), {"__eq__": lambda self, other: 1 / 0})()), "an Odd"),
], ids=["generator", "function", "str", "set", "a thing that cannot be compared"])
def test_other_things_returned(name, make, says):
    hint = {"a generator": "Was `yield` written for `return`, or round brackets for square ones? Look at ",
            "a function": "Are the brackets of a call missing? Look at "}.get(says, "Look at ")
    assert message_of(name, make(name)).startswith(wanted(name, says) + hint)


def test_iterators_are_none_either():
    assert message_of("multi_model_plan", lambda columns: enumerate(columns[:-1], 1)).startswith("it returned an enumerate; what is wanted")
    assert message_of("herding", lambda features, count: map(int, range(count))).startswith("it returned a map; what is wanted")


@pytest.mark.parametrize("name, make, says, hint", [
    *((name, each(torch.Tensor.item), "a float", "No gradient passes through a Python number: was it made by `item` or `float`?") for name in LOSSES),
    *((name, each(lambda loss: loss.detach().numpy()), "a numpy array of shape ()",
       "There is numpy in it, where no gradient passes: stay with tensors.") for name in LOSSES),
    *((name, each(lambda t: t.numpy()), "a numpy array of shape {}", "`torch.from_numpy` makes a tensor of numpy's array.") for name in TENSORS),
    *((name, each(lambda t: t.tolist()), "a list of {}", "`torch.tensor` makes a tensor of numbers.") for name in TENSORS),
    ("multi_model_targets", each(lambda t: t.numpy()), "a tuple of 2", "`torch.from_numpy` makes a tensor of numpy's array."),
    *((name, each(torch.tensor), "a tensor of shape () and dtype float32", "`item` makes a Python number of a tensor with one.") for name in NUMBERS),
    *((name, each(lambda number: torch.full((3,), number)), "a tensor of shape (3,) and dtype float32",
       "There are several numbers where one is wanted.") for name in NUMBERS),
    *((name, returns(lambda result: (result,)), "a tuple of 1", "Is there a comma too many behind it?") for name in LOSSES + NUMBERS + TENSORS),
    *((name, each(lambda loss: loss * torch.ones(3)), "a tensor of shape (3,) and dtype float32",
       "There are several numbers where one is wanted: what is left to add up?") for name in LOSSES),
    *((name, each(lambda loss: loss[None]), "a tensor of shape (1,) and dtype float32", "It has a dimension too many.") for name in LOSSES),
    *((name, returns(lambda plan: 0.5), "a float", "") for name in PLANS + NESTED),
    *((name, returns(lambda result: True), "a bool", "One number stands for all of them.") for name in TENSORS),
])
def test_another_kind_is_told_with_what_made_it(name, make, says, hint):
    first = right(name)(*checks.EXERCISES[name].cases[0].arguments())
    if "{}" in says:
        says = says.format(len(first) if "list" in says else tuple(first.shape))
    assert message_of(name, make(name)).startswith(f"{wanted(name, says)}{f'{hint} ' if hint else ''}Look at ")


@pytest.mark.parametrize("name", LOSSES + TENSORS + NESTED)
@pytest.mark.parametrize("change, says", [
    (lambda t: t.double(), "has dtype float64 and should have "),
    (lambda t: t.to(torch.complex64), "has dtype complex64 and should have "),
    (lambda t: t.to("meta"), "is on the device meta and should be on cpu, where the arguments are. Look at "),
    (lambda t: t.to_sparse(), "has layout sparse_coo and should have strided. Look at "),
], ids=["float64", "complex", "device", "sparse"])
def test_another_dtype_device_or_layout(name, change, says):
    case = checks.EXERCISES[name].cases[0].what
    message = message_of(name, each(change)(name))
    assert message.startswith(f"in \"{case}\", ") and says in message


@pytest.mark.parametrize("name", ["active", "prune", "reconstruct", "herding", "nearest_mean"])
def test_whole_numbers_of_another_size(name):
    assert "has dtype int32 and should have " in message_of(name, each(lambda t: t.int())(name))


@pytest.mark.parametrize("name, change", [("active", lambda t: t.any()), ("herding", lambda t: t[0]), ("nearest_mean", lambda t: t.max()),
                                          ("multi_model_targets", lambda t: t.mean()), ("prune", lambda t: t.sum().byte()),
                                          ("reconstruct", lambda t: t.sum())])
def test_one_number_where_one_for_each_is_wanted(name, change):
    message = message_of(name, each(change)(name))
    assert " has shape () and should have (" in message and "): one number stands for all of them. Does a sum run over too much? Look" in message


@pytest.mark.parametrize("name", TENSORS + NESTED)
def test_another_shape(name):
    message = message_of(name, each(lambda t: t[None])(name))
    assert " has shape (1, " in message and " and should have (" in message


@pytest.mark.parametrize("name", NUMBERS + LOSSES + ["multi_model_targets", "reconstruct"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite(name, value):
    message = message_of(name, each(lambda part: part + value)(name))
    assert f"yours is {value}, which is not a finite number. Look at " in message


def test_what_cannot_be_read_is_told_in_its_own_words():
    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise ValueError("no way back")

    message = message_of("distillation_loss", returns(Backwards.apply)("distillation_loss"))
    assert message.startswith("it raised ValueError: no way back, at line ") and '`raise ValueError("no way back")`' in message


def test_a_student_who_stops_the_kernel_is_heard():
    def stopped(*arguments):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        checks.active(stopped)


def test_what_a_student_prints_is_shown_in_a_right_answer_too(capsys):
    def function(mask, step):
        print("here", np.array([1, 2]), end="\n\n")
        return right("active")(mask, step)
    out = sys.stdout
    checks.active(function)
    assert sys.stdout is out and capsys.readouterr().out.count("here [1 2]\n\n") == 3


def test_no_error_of_a_table_escapes():
    """A sign that fails on an odd result is no sign of it."""
    exercise = checks.EXERCISES["forgetting"]
    odd = [engine.Outcome(value=torch.zeros(4), returned=torch.zeros(4))] * 3
    try:
        engine.diagnose(exercise, odd, engine.outcomes(exercise, exercise.reference), 0)
    except Exception as error:
        pytest.fail("".join(traceback.format_exception(error)))
