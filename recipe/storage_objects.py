"""Class, volumes and claims of the three caches. Static: the access points are Pulumi's, the driver only mounts them.

A dynamically provisioned volume would delete its directory with its claim, and would leave an access point behind when the
cluster goes first.
"""

from __future__ import annotations

from recipe.context import RenderContext
from recipe.plan import ClaimPlan, Late, Manifest

DRIVER = "efs.csi.aws.com"
LUSTRE_DRIVER = "fsx.csi.aws.com"


def class_name(context: RenderContext) -> str:
    """Cluster-scoped, so it carries the stack; only this stack's claims ask for it, so nobody else binds its volumes."""
    return f"{context.names.prefix}-efs"


def lustre_class_name(context: RenderContext) -> str:
    """The same for the weights on FSx for Lustre."""
    return context.names.lustre


def volume_name(context: RenderContext, claim: ClaimPlan) -> str:
    """Cluster-scoped as well."""
    return f"{context.names.prefix}-{claim.key}"


def storage_class(context: RenderContext) -> Manifest:
    """Binds at once; provisions nothing, since it names no provisioning mode."""
    return _class(context, class_name(context), DRIVER)


def lustre_class(context: RenderContext) -> Manifest | None:
    """The second class, where there is a claim for it. Provisions nothing either: its claims name their volume, which is there."""
    return _class(context, lustre_class_name(context), LUSTRE_DRIVER) if context.storage.lustre else None


def _class(context: RenderContext, name: str, driver: str) -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "labels": context.labels},
        "provisioner": driver,
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }


def volume(context: RenderContext, claim: ClaimPlan) -> Manifest:
    """A volume on the claim's access point, encrypted in transit (the driver's default); or all of the FSx for Lustre, whose
    traffic AWS encrypts between the instance types that can (FSx user guide, encryption in transit)."""
    source: Manifest = {
        "csi": {"driver": DRIVER, "volumeHandle": f"{Late.FILE_SYSTEM}::{Late.access_point(claim.purpose)}"}
    }
    if claim.on_lustre:
        source = {
            # The hub's client locks the files it writes; without flock Lustre refuses locks.
            "mountOptions": ["flock"],
            "csi": {
                "driver": LUSTRE_DRIVER,
                "volumeHandle": Late.LUSTRE,
                "volumeAttributes": {"dnsname": Late.LUSTRE_DNS, "mountname": Late.LUSTRE_MOUNT},
            },
        }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(context, claim), "labels": context.labels},
        "spec": {
            "capacity": {"storage": f"{claim.size_gib}Gi"},
            "accessModes": ["ReadWriteMany"],
            "volumeMode": "Filesystem",
            # What is on the file system goes with the file system, in the stack's own order, not with this object.
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _class_of(context, claim),
            **source,
        },
    }


def volume_claim(context: RenderContext, claim: ClaimPlan) -> Manifest:
    """A claim bound to exactly that volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim.name, "namespace": context.names.namespace, "labels": context.labels},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": f"{claim.size_gib}Gi"}},
            "storageClassName": _class_of(context, claim),
            "volumeName": volume_name(context, claim),
        },
    }


def _class_of(context: RenderContext, claim: ClaimPlan) -> str:
    return lustre_class_name(context) if claim.on_lustre else class_name(context)
