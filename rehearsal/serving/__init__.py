"""Dynamo's own frontend and router with its mock engine, on loopback, as a rendered graph describes them.

    from rehearsal.serving import serve

    with serve(graph, plan) as serving:          # graph: the DynamoGraphDeployment, as `plan.objects.graph` or from the pretend cloud
        serving.url                               # "http://127.0.0.1:41233", of the first frontend: /v1/chat/completions, /metrics
        serving.model                             # "Qwen/Qwen3-32B", the name to ask for
        serving.metrics_urls                      # {"frontend-0": "http://…/metrics", "prefill-0": …}: one per frontend and worker
        serving.workers                           # name, role, component, id and metrics URL of each
        serving.timing                            # what the times come from, in words: belongs beside every figure
        serving.model_folder                      # tokenizer, chat template and configuration (no weights)

`serve` sets the environment up where it has to (1.3 GB, once; `progress` shows it), starts one real `dynamo.frontend` per frontend
replica and one process of `dynamo.mocker` per pool, waits until the model is listed, every worker is registered and every pool has
answered once, and ends all of it on the way out, however the owner ends. `SetupError` says why it cannot. Several at once do not
disturb each other.

Every time that comes out is simulated: `serving.timing` says by what. The tokens are random, and the tokenizer was trained on this
machine (8,192 tokens), so a text has more tokens here than with Qwen's own.

The packages: `ensure_environment`. To have others in an environment of their own, with a lock file: `rehearsal.pyenv`, `rehearsal.lock`.
"""

from rehearsal.serving.commands import Facts
from rehearsal.serving.environment import ensure_environment
from rehearsal.serving.probe import Answer, ask
from rehearsal.serving.server import Serving, Worker, serve

__all__ = ["Answer", "Facts", "Serving", "Worker", "ask", "ensure_environment", "serve"]
