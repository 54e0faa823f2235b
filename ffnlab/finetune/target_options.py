"""Flags of what is predicted of a text: one label, a number, or several labels."""

import dataclasses

from ffnlab.data.targets import MULTI, PROBLEM_TYPES, REGRESSION, SINGLE, Targets
from ffnlab.errors import InputError
from ffnlab.options import option

_TASKS = ("classify", "pairs")
# Flags that a kind of target refuses, unless they have their default.
_REFUSED = {
    REGRESSION: (
        "label_smoothing",
        "class_weights",
        "r_drop_alpha",
        "unseen_labels",
        "label_names",
        "label_separator",
    ),
    MULTI: ("class_weights",),
    SINGLE: ("label_separator",),
}


@dataclasses.dataclass(frozen=True)
class TargetOptions:
    """Targets: what is predicted of a text."""

    problem_type: str | None = option(
        None,
        "Kind of target, for classify and pairs: one label (single_label_"
        "classification), a number (regression), or any number of labels "
        "(multi_label_classification). If not given, one label; labels that look like "
        "scores or lists are then refused.",
        known=lambda: PROBLEM_TYPES,
    )
    label_separator: str | None = option(
        None,
        "What stands between the labels of a cell, for multi_label_classification. If "
        "not given, `|`. Cells and values of JSON may also be lists.",
    )

    @property
    def targets(self) -> Targets | None:
        """How targets are read; None reads one label."""
        if self.problem_type in (None, SINGLE):
            return None
        return Targets(self.problem_type, self.label_separator)

    def check_targets(self, task: str) -> None:
        """Checks that the kind of target fits the task and the other flags.

        Args:
          task: The name of the task.

        Raises:
          InputError: It does not.
        """
        if self.problem_type and task not in _TASKS:
            raise InputError(f"problem_type: for task={', '.join(_TASKS)}, not {task}")
        if self.label_separator is not None and not self.label_separator.strip():
            raise InputError("label_separator: it is blank; give a sign such as ;")
        kind = self.problem_type or SINGLE
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _REFUSED[kind] and value != field.default:
                raise InputError(f"{field.name}: not for problem_type={kind}")
