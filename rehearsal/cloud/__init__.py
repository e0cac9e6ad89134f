"""A pretend AWS and Kubernetes: pure Python, a store on disk, virtual time. `Cloud` is what the providers call.

    Cloud(store: Path, clock: Clock, faults: Faults | None = None, *, durations, machines, region, account)
    .configure(provider, config)  .protect(secret)  .known(typ)
    .check(typ, urn, olds, news) -> CheckResult(inputs, failures)
    .diff(typ, id, old_inputs, old_outputs, new_inputs) -> DiffResult(changes, replaces, diffs, delete_before_replace)
    .create(typ, urn, inputs, *, preview, timeout_s) -> (id, outputs)
    .read(typ, id) -> (id, inputs, outputs) | None
    .update(typ, urn, id, old_inputs, old_outputs, new_inputs, *, preview, timeout_s) -> outputs
    .delete(typ, urn, id, old_inputs, old_outputs, *, timeout_s)
    .timeline()  .left()  .gpu_time()  .close()

Values are plain Python; what a preview cannot know is `UNKNOWN`. Secrets come unwrapped: those in a Secret's data are kept out of store
and journal by themselves, any other the caller names with `protect`.
"""

from .cloud import Cloud
from .faults import Fault, Faults
from .machines import Machine, Machines
from .report import GpuTime, Left, Step
from .values import UNKNOWN, CheckResult, CloudError, DiffResult, Unfinished

__all__ = [
    "UNKNOWN", "CheckResult", "Cloud", "CloudError", "DiffResult", "Fault", "Faults", "GpuTime", "Left", "Machine", "Machines", "Step", "Unfinished",
]  # fmt: skip
