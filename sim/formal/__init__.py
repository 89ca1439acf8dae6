"""Proofs about blocks: a bench with free inputs, what must hold in it, and the solver that shows it or disproves it.

A proof is a function that fills a `Bench`. It is run by Yosys and smtbmc with Bitwuzla: by k-induction, which holds in
every cycle after reset, or bounded, which holds in the first so many. So that no proof is empty, each property names an
edit of the block's source (`Edit`) with which it must fail from reset on, and each bench names states that must be
reached.
"""

from .bench import Bench, Edit, Inside
from .tasks import Outcome, Proof, Property, Task, run_task, tasks_of

__all__ = ["Bench", "Edit", "Inside", "Outcome", "Proof", "Property", "Task", "run_task", "tasks_of"]
