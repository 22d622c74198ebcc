"""The optimiser of `AdaTask`: Adam moments per parameter and task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from branchtune.errors import UserError


class AdaTaskOptimizer(torch.optim.Optimizer):
    """AdaTask on Adam (arXiv 2211.15055): p <- p - lr sum_t mhat_t / (sqrt(vhat_t) + eps).

    mhat_t = m_t / (1 - beta1^k_t) and vhat_t = v_t / (1 - beta2^k_t) are the bias-corrected moments of task t: it
    contributes to each parameter exactly the update that Adam would make on this task's gradients alone. A task
    without a gradient in this step contributes nothing and its moments wait.

    The step count k_t is kept per parameter *and* task. With one count per parameter, as published, a task whose
    labels first appear late would start with steps (1 - beta1) / sqrt(1 - beta2) = 3.2 times too large; where every
    task has a gradient in every step the two are the same.

    Args:
        params: parameters or groups, as every torch optimiser takes.
        lr: learning rate.
        betas: decay of m and v per step.
        eps: added to the root of v.
        weight_decay: decoupled, once per step of a parameter that any task reaches.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.task_gradients: dict[str, Sequence[Tensor | None]] | None = None

    def parameters(self) -> list[torch.nn.Parameter]:
        """All parameters, in the order that `set_task_gradients` expects."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def set_task_gradients(self, gradients: Mapping[str, Sequence[Tensor | None]]) -> None:
        """Hand over the gradients that the next `step()` consumes.

        Args:
            gradients: per task one gradient for each of `parameters()`, None where the parameter is off the task's
                path; tasks without a loss are left out.

        Raises:
            UserError: a list of another length, or a gradient of another shape.
        """
        parameters = self.parameters()
        for task, values in gradients.items():
            if len(values) != len(parameters):
                raise UserError(
                    f"task {task!r} has {len(values)} gradients for {len(parameters)} parameters: pass one for each of "
                    "parameters(), None where there is none"
                )
            for index, (parameter, value) in enumerate(zip(parameters, values, strict=True)):
                if value is not None and value.shape != parameter.shape:
                    raise UserError(
                        f"gradient {index} of task {task!r} has shape {tuple(value.shape)}, its parameter has "
                        f"{tuple(parameter.shape)}: keep the order of parameters()"
                    )
        self.task_gradients = dict(gradients)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients handed over.

        Args:
            closure: called first, with gradients enabled; it may hand the gradients over.

        Returns:
            What the closure returned.

        Raises:
            UserError: no gradients were handed over since the last step.
        """
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        if self.task_gradients is None:
            raise UserError("AdaTask needs one gradient per task: call set_task_gradients(...) before step()")
        gradients, self.task_gradients = self.task_gradients, None
        start = 0
        for group in self.param_groups:
            stop = start + len(group["params"])
            # Sorted, so that rounding does not depend on the order in which losses were computed.
            self._step_group(group, {task: gradients[task][start:stop] for task in sorted(gradients)})
            start = stop
        return result

    def _step_group(self, group: dict[str, Any], gradients: Mapping[str, Sequence[Tensor | None]]) -> None:
        reached = [
            parameter
            for index, parameter in enumerate(group["params"])
            if any(values[index] is not None for values in gradients.values())
        ]
        if not reached:
            return
        if group["weight_decay"]:
            torch._foreach_mul_(reached, 1 - group["lr"] * group["weight_decay"])
        averages = [task["squared_update"] for p in reached for task in self._tasks_of(p).values()]
        if averages:
            torch._foreach_mul_(averages, group["betas"][1])
        for task, values in gradients.items():
            pairs = [(p, g) for p, g in zip(group["params"], values, strict=True) if g is not None]
            if pairs:
                self._step_task(group, task, [p for p, _ in pairs], [g for _, g in pairs])

    def _step_task(self, group: dict[str, Any], task: str, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        states = [self._state_of(p, task) for p in parameters]
        for state in states:
            state["step"] += 1
        m, v = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(m, gradients, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
        root = torch._foreach_sqrt(v)
        torch._foreach_div_(root, [(1 - beta2 ** state["step"]) ** 0.5 for state in states])
        torch._foreach_add_(root, group["eps"])
        updates = torch._foreach_div(m, root)
        torch._foreach_mul_(updates, [group["lr"] / (1 - beta1 ** state["step"]) for state in states])
        torch._foreach_sub_(parameters, updates)
        norms = torch._foreach_norm(updates)
        torch._foreach_addcmul_([state["squared_update"] for state in states], norms, norms, 1 - beta2)

    def dominance(self, parameters: Iterable[Tensor] | None = None) -> dict[str, float]:
        """Each task's share of the movement: AU_t / sum AU, with AU_t the decaying average of its squared updates.

        The averages decay with beta2 (arXiv 2211.15055 defines AU per parameter; here it is summed over parameters).

        Args:
            parameters: over which to sum; default: those that more than one task reaches.

        Returns:
            Shares that sum to one, by task; empty before anything of this has moved.
        """
        if parameters is None:
            parameters = [p for p in self.parameters() if len(self._tasks_of(p)) > 1]
        sums: Counter[str] = Counter()
        for parameter in parameters:
            for task, state in self._tasks_of(parameter).items():
                sums[task] += state["squared_update"].item()
        total = sum(sums.values())
        return {task: sums[task] / total for task in sorted(sums)} if total else {}

    def _tasks_of(self, parameter: Tensor) -> dict[str, dict[str, Any]]:
        """What is kept of one parameter, by the tasks that have reached it."""
        return self.state[parameter]["tasks"] if parameter in self.state else {}

    def _state_of(self, parameter: Tensor, task: str) -> dict[str, Any]:
        tasks = self.state[parameter].setdefault("tasks", {})
        if task not in tasks:
            tasks[task] = {
                "step": 0,
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
                "squared_update": parameter.new_zeros(()),
            }
        return tasks[task]
