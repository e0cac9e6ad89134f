"""What goes wrong, in one table: the words it is known by, why it happens, what to do. In the order of cause.

`ops doctor` finds the rows that apply, docs/troubleshooting.md lists them all (`python -m ops.symptoms` prints it, a test holds it). An
evidence belongs to the first row whose words it has, so what causes others stands before them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Symptom:
    """One row. `fix` is filled in for the stack: {stack}, {region}, {cluster}, {namespace}, {gpu_group}, {type}, {zone}, {account}."""

    key: str
    title: str
    words: str
    """What it is recognised by in any message, as a regular expression; empty where the doctor finds it by looking."""
    cause: str
    fix: str

    def matches(self, text: str) -> bool:
        return bool(self.words) and re.search(self.words, text) is not None

    def help(self, facts: dict[str, Any]) -> str:
        """What to do, for one stack."""
        return self.fix.format_map(facts)


SYMPTOMS: Final[tuple[Symptom, ...]] = (
    # ── this machine and who asks
    Symptom("tool-missing", "A tool is missing or too old", "",
            "`pulumi` runs the program, `aws` gives every Kubernetes client its token, Python 3.11 runs both.",
            "Install what is named: https://www.pulumi.com/docs/install/ and https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"),
    Symptom("not-set", "A value only you know is not set", "is a documentation placeholder|not set: only you know it",
            "Account, zone and networks are yours; the stack files leave them out.", "Run the command that is printed beside the key."),
    Symptom("credentials-missing", "No AWS credentials", r"NoCredentials|Unable to locate credentials|no valid credential sources|InvalidClientTokenId|ProfileNotFound",
            "Nothing that the AWS CLI would use was found, or it is unknown to AWS.",
            "Log in (`aws sso login`, or AWS_PROFILE), then `aws sts get-caller-identity` must name account {account}."),
    Symptom("credentials-expired", "AWS credentials have expired", r"ExpiredToken|RequestExpired|token included in the request is expired|getting credentials: exec|UnauthorizedSSOToken|Token has expired",
            "A session lasts hours, and an `up` with its downloads nearly one. What AWS accepted before exists; what it was asked afterwards does not.",
            "Log in again with a session longer than two hours, then `python -m ops recover {stack}` and the same command again."),
    Symptom("account-foreign", "The credentials belong to another account", r"AWS [Aa]ccount ID not allowed|not the stack's account",
            "A stack says which account it belongs to (`access.account_id`), and everything is refused in any other.",
            "Change to credentials of account {account} (AWS_PROFILE), or set access.account_id if the stack is meant to move."),
    Symptom("not-permitted", "AWS refuses the permission", r"AccessDenied|UnauthorizedOperation|is not authorized to perform|AuthFailure\.ServiceLinkedRole",
            "The role or user may not do what the message names.", "Give it that action, or use an administrator for `up` and `destroy`."),
    Symptom("throttled", "AWS throttles", r"[Tt]hrottl|Rate exceeded|RequestLimitExceeded|TooManyRequestsException",
            "Too many calls a second in this account and region, from all that use it. Nothing is broken.",
            "Wait a minute and repeat the same command: what was made stays. `--parallel 8` asks for less at once."),
    # ── what AWS has
    Symptom("zone-unknown", "The zone is not open to this account", r"Value \([\w-]+\) for parameter availabilityZoneId is invalid|InvalidParameterValue: .*availabilityZone",
            "Zone ids are per region, and new zones are opted into.", "`aws ec2 describe-availability-zones --region {region}` lists them; set access.zone_id."),
    Symptom("zone-without-type", "The zone does not have the instance type", r"Unsupported - |not supported in your requested Availability Zone|does not offer",
            "P instances are in one or two zones of a region only.",
            "`aws ec2 describe-instance-type-offerings --region {region} --location-type availability-zone-id --filters Name=instance-type,Values={type}` says where it is. "
            "Another access.zone_id makes everything anew: set it before the first `up`."),
    Symptom("quota", "A quota is used up", r"(?<!Backoff)(?<!Request)LimitExceeded|QuotaExceeded|of the quota",
            "Quotas of P instances are 0 in a new account; addresses, VPCs and clusters have small ones.",
            "Ask for more under Service Quotas in {region} (`ops plan {stack}` names the code and the vCPUs): hours to days. A reservation is not counted."),
    Symptom("reservation-unknown", "The reservation does not exist here", r"InvalidCapacityReservationId|no such reservation",
            "Reservations are per account and region.", "`aws ec2 describe-capacity-reservations --region {region}` lists yours; set hardware.capacity.reservation_id."),
    Symptom("reservation-misfit", "The reservation does not fit the stack", r"ReservationCapacityExceeded|reservation is for|reservation has",
            "Type, zone, count and kind of a reservation are fixed.", "Set what differs in the stack file to what the reservation says, or name another one."),
    Symptom("block-not-begun", "The Capacity Block has not begun", r"block begins",
            "Launches fail until it has.", "Wait with `pulumi up` until then; everything else can be brought up paused: `pulumi config set -s {stack} --path recipe.hardware.paused true`."),
    Symptom("block-ends", "The Capacity Block ends", r"block ends|block has ended",
            "EKS takes the nodes away 40 minutes before its end, EC2 stops them 30 minutes before.",
            "Bring results home and `pulumi destroy -s {stack}`, or buy the next block and set hardware.capacity.reservation_id."),
    Symptom("no-capacity", "AWS has no GPU capacity", r"InsufficientInstanceCapacity|InsufficientCapacity",
            "On-demand P instances are often not to be had. Nothing is paid for GPUs; AWS may still deliver the nodes later.",
            "`aws eks describe-nodegroup --region {region} --cluster-name {cluster} --nodegroup-name {gpu_group} --query nodegroup.status`: ACTIVE: `pulumi refresh -s {stack}`, then `pulumi up -s {stack}`, "
            "keeps them. Else `pulumi up -s {stack}` asks again; a Capacity Block or reservation is certain; `pulumi destroy -s {stack}` gives everything back."),
    # ── going away
    Symptom("graph-stays", "The graph does not go: a finalizer", r"nvidia\.com/finalizer",
            "Only a running operator removes it.", "`kubectl -n dynamo-system get pods`; with the operator gone for good: `kubectl -n {namespace} patch dynamographdeployment {namespace} --type=merge "
            "-p '{{\"metadata\":{{\"finalizers\":[]}}}}'`, then the same command again."),
    Symptom("claim-stays", "A claim or volume does not go", r"pvc-protection|pv-protection|is Terminating",
            "A pod uses it still, or its driver went first.", "`kubectl -n {namespace} get pods`; when none uses it: `kubectl -n {namespace} patch pvc NAME --type=merge "
            "-p '{{\"metadata\":{{\"finalizers\":null}}}}'`, then the same command again."),
    Symptom("interface-left", "A network interface holds subnet or group", r"DependencyViolation|has dependencies and cannot be deleted|dependent object|mapped public address|interface is left",
            "EKS or its CNI left it behind; it costs nothing, but the network cannot go.", "`python -m ops sweep {stack}` finds and deletes it, then `pulumi destroy -s {stack}`."),
    Symptom("cluster-unreachable", "The Kubernetes API cannot be reached", r"cluster is unreachable|Unable to connect to the server",
            "Your address is not in access.endpoint_cidrs any more, or the cluster is gone or not ACTIVE.",
            "`curl -s https://checkip.amazonaws.com` against access.endpoint_cidrs; then the same command again. For `destroy` only: PULUMI_K8S_DELETE_UNREACHABLE=true."),
    # ── what is fetched
    Symptom("image-unknown", "An image cannot be pulled", r"ImagePullBackOff|ErrImagePull|manifest unknown|image is not there",
            "The tag does not exist, the registry wants a login, or nodes have no way out.", "Check the tag the message names; `versions.dynamo` chooses it."),
    Symptom("chart-unknown", "A chart is not in its repository", r"chart .*not found|no chart version|chart is not there",
            "A version was withdrawn, or the repository cannot be reached.", "Check `versions.*` in the stack file against the repository's index."),
    Symptom("token-refused", "Hugging Face refuses the token", r"401 Client Error|Invalid (user|username or) ?(token|password)|token is missing or does not give access",
            "The token is wrong, expired or revoked.", "`pulumi config set --secret hfToken -s {stack}` with a new one, then `pulumi up -s {stack}`: the download goes on where it was."),
    Symptom("token-no-access", "The token has no access to the model", r"403 Client Error|[Gg]ated ?[Rr]epo",
            "The model is gated and its licence not accepted by the token's owner.", "Accept it on the model's page, then `pulumi up -s {stack}`."),
    Symptom("hub-slow", "Hugging Face limits the download", r"\b429\b|Too Many Requests",
            "More than a hundred GB from one address are slowed down; the Job waits as it is told and goes on.",
            "If its deadline ended it: `pulumi up -s {stack}` resumes. A token raises the limit (weights.token), weights.timeout_minutes the patience."),
    Symptom("revision-unknown", "The revision is not on Hugging Face", r"revision is not there|RevisionNotFound|404 Client Error",
            "The commit does not exist in that repository.", "Leave weights.revision unset, or take the commit from the model's page."),
    Symptom("disk-full", "No room for the weights", r"No space left on device|\[Errno 28\]",
            "The node's disk is full: EFS has no end.", "A larger hardware.cpu.disk_gib, then `pulumi up -s {stack}`."),
    Symptom("weights-damaged", "A file of the weights is not whole", r"bytes instead of|hash .* instead of|Consistency check failed|Damaged",
            "A transfer was cut short and stayed so; nothing that is not verified is ever served.", "`pulumi up -s {stack}` downloads what is missing anew."),
    # ── nodes
    Symptom("node-not-joined", "Instances run but do not join the cluster", r"NodeCreationFailure|failed to join",
            "No way out of their subnet, a missing policy of the node role, or a security group: they are paid for meanwhile.",
            "`pulumi destroy -s {stack}` if GPUs are waiting; `aws eks describe-nodegroup --region {region} --cluster-name {cluster} --nodegroup-name {gpu_group} --query nodegroup.health` names them."),
    Symptom("nodes-degraded", "A node group is degraded", r"\bDEGRADED\b|node-group-degraded",
            "Its nodes lost the control plane, mostly because routes or NAT went before them.", "`pulumi destroy -s {stack}` again; then `python -m ops sweep {stack}`."),
    Symptom("node-not-ready", "A node is not Ready", r"NotReady|KubeletNotReady|node is not ready",
            "It boots still (GPU types take 5 to 8 minutes), or its network plugin does not run.", "Wait ten minutes; then `kubectl describe node NODE`."),
    Symptom("gpus-not-offered", "A node offers no GPUs", r"offers no nvidia\.com/gpu",
            "The NVIDIA device plugin does not run there.", "`kubectl -n kube-system get pods -o wide | grep nvidia` and its log."),
    Symptom("efa-not-offered", "A node offers too few EFA devices", r"of \d+ EFA devices",
            "The EFA plugin does not run there, or the template's interfaces are not all EFA: transfers would go over TCP.",
            "`kubectl -n kube-system get pods -o wide | grep efa` and its log; hardware.nic_layout is the other layout."),
    # ── storage
    Symptom("driver-late", "The EFS driver does not run yet", r"registered CSI drivers|driver (efs|fsx)\.csi\.aws\.com does not run|driver's pods have no credentials",
            "The add-on is ACTIVE before its pods run on every node; claims wait for them five minutes.",
            "`pulumi up -s {stack}` again. If it stays: `kubectl -n kube-system get pods -l app.kubernetes.io/name=aws-efs-csi-driver`."),
    Symptom("claim-pending", "A claim is not bound", r"unbound immediate PersistentVolumeClaims|no persistent volumes available|is not Bound|claim is Pending",
            "Its volume, class or access point is missing or does not fit.", "`kubectl -n {namespace} describe pvc`; then `pulumi up -s {stack}`."),
    Symptom("mount-failed", "A volume cannot be mounted", r"MountVolume|FailedMount|Failed to resolve",
            "The mount target's name takes 90 s to be known; or port 2049 is closed.", "Wait two minutes; then check the mount target in {zone}."),
    Symptom("addon-degraded", "An add-on does not get healthy", r"InsufficientNumberOfReplicas|add-on is unhealthy",
            "CoreDNS and the CSI controllers need a CPU node with room.", "`kubectl -n kube-system get pods -o wide`, then `pulumi up -s {stack}`."),
    # ── platform and graph
    Symptom("chart-failed", "A chart does not get ready", r"Helm release .* failed to initialize|context deadline exceeded|cannot re-use a name",
            "Its pods do not run in time.", "`kubectl -n dynamo-system get pods` says why; `pulumi up -s {stack}` upgrades it in place."),
    Symptom("webhook-silent", "The operator's webhook does not answer", r"failed calling webhook|no endpoints available for service",
            "The operator starts still, or its pod is gone. The admission Job asks again until it answers.",
            "`kubectl -n dynamo-system get pods`; when it runs: `pulumi up -s {stack}`."),
    Symptom("graph-refused", "The API server refuses the graph", r"refuses the graph|denied the request|admission webhook|strict decoding error|is immutable",
            "Schema, CEL rule or webhook: the message names the field. No GPU was paid for.", "Mend the key of the recipe that the field comes from; `ops plan {stack} --manifests DIR` shows the graph."),
    Symptom("crd-missing", "The graph's kind is not known yet", r"no matches for kind|does not know DynamoGraphDeployment",
            "The operator applies it when it starts.", "`pulumi up -s {stack}` again; if it stays: `kubectl -n dynamo-system logs deployment/dynamo-platform-dynamo-operator-controller-manager`."),
    Symptom("config-missing", "A pod refers to what is not there", r"CreateContainerConfigError|configmap .*not found|secret .*not found",
            "A ConfigMap or Secret was deleted by hand.", "`pulumi refresh -s {stack}`, then `pulumi up -s {stack}`."),
    Symptom("out-of-memory", "A container is out of memory", r"OOMKilled", "Its limit is too small.",
            "workers.*.memory_gib for a worker, weights.memory_gib for the download."),
    Symptom("unschedulable", "A pod finds no node", r"Unschedulable|FailedScheduling|nodes are available|Insufficient (nvidia|vpc|cpu|memory)",
            "Too few nodes Ready, or a plugin that does not offer its devices: look at those first.", "If nothing else is named: `ops plan {stack}` shows who should be where."),
    Symptom("crash-loop", "A worker crashes at start", r"CrashLoopBackOff|BackOff",
            "Flags, memory or the model: the log's last lines say it.", "`kubectl -n {namespace} logs POD --previous`; each minute costs what `ops plan` says."),
    Symptom("graph-failed", "The operator says the graph failed", r"reconciling the graph failed|graph failed|state failed|the operator says",
            "It could not make what the graph asks for.", "`kubectl -n {namespace} describe dynamographdeployment`; after mending it `pulumi up -s {stack}`."),
    Symptom("deadline", "A Job ended at its deadline", r"DeadlineExceeded|longer than specified deadline|before the deadline|timed out waiting|timeout while waiting",
            "What it waits for took longer than the recipe allows.", "Its last message says what; serving.ready_timeout_minutes, weights.timeout_minutes and hardware.create_timeout_minutes are the limits."),
    # ── the state
    Symptom("already-exists", "Something exists that the state does not know", r"[Aa]lready ?[Ee]xists|AlreadyAssociated|ResourceInUse|InvalidGroup\.Duplicate|FileSystemAlreadyExists|MountTargetConflict",
            "An `up` ended between AWS' yes and the engine's note of it.", "`python -m ops recover {stack}`, then the same command again."),
    Symptom("locked", "The state is locked", r"stack is currently locked|the stack is locked", "An engine was killed, or another one runs.",
            "If none runs: `pulumi cancel -s {stack}`, then `python -m ops recover {stack}`."),
    Symptom("unfinished", "The state has unfinished operations", r"pending operations|pending_operations", "An engine was killed while AWS worked.",
            "`python -m ops recover {stack}`, then the same command again."),
)  # fmt: skip
OTHER: Final = Symptom("other", "Something else", "", "No row of the table knows these words.", "Search for the message; `pulumi up -s {stack}` again is safe.")  # fmt: skip
BY_KEY: Final = {symptom.key: symptom for symptom in (*SYMPTOMS, OTHER)}


def recognise(text: str) -> Symptom:
    """The first row whose words are in `text`; OTHER where none's are."""
    return next((symptom for symptom in SYMPTOMS if symptom.matches(text)), OTHER)


def rank(symptom: Symptom) -> int:
    """Place in the order of cause."""
    return SYMPTOMS.index(symptom) if symptom in SYMPTOMS else len(SYMPTOMS)


_NAMES: Final = {
    "stack": "STACK", "region": "REGION", "cluster": "CLUSTER", "namespace": "NAMESPACE", "gpu_group": "GROUP", "type": "TYPE", "zone": "ZONE",
    "account": "ACCOUNT",
}  # fmt: skip


def document() -> str:
    """docs/troubleshooting.md, whole."""
    lines = [
        "# Troubleshooting",
        "",
        "<!-- Written by `python -m ops.symptoms > docs/troubleshooting.md`; do not edit. -->",
        "",
        "`python -m ops doctor STACK` finds which of these it is, in this order: what causes others comes first. Before anything is paid for it",
        "looks at tools, credentials, account, zone, quotas, reservation, images, charts and token; after a failed `up` or `destroy` also at nodes,",
        "add-ons, claims, pods, Jobs, events and what AWS refused. Give it what the command printed for what nothing else remembers:",
        "`pulumi up -s STACK 2>&1 | tee up.log`, then `python -m ops doctor STACK --said up.log`.",
    ]
    for symptom in SYMPTOMS:
        lines += ["", f"## {symptom.title}", "", f"{symptom.cause}", "", symptom.help(_NAMES)]
        if symptom.words:
            lines += ["", f"Known by: `{symptom.words}`"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201 - a script
