"""Class, volumes and claims of the three caches. Static: the access points are Pulumi's, the driver only mounts them.

A dynamically provisioned volume would delete its directory with its claim, and would leave an access point behind when the
cluster goes first.
"""

from __future__ import annotations

from recipe.context import RenderContext
from recipe.plan import ClaimPlan, Late, Manifest

DRIVER = "efs.csi.aws.com"


def class_name(context: RenderContext) -> str:
    """Cluster-scoped, so it carries the stack; only this stack's claims ask for it, so nobody else binds its volumes."""
    return f"{context.names.prefix}-efs"


def volume_name(context: RenderContext, claim: ClaimPlan) -> str:
    """Cluster-scoped as well."""
    return f"{context.names.prefix}-{claim.purpose}"


def storage_class(context: RenderContext) -> Manifest:
    """Binds at once; provisions nothing, since it names no provisioning mode."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": class_name(context), "labels": context.labels},
        "provisioner": DRIVER,
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }


def volume(context: RenderContext, claim: ClaimPlan) -> Manifest:
    """A volume on the claim's access point, encrypted in transit (the driver's default)."""
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
            "storageClassName": class_name(context),
            "csi": {"driver": DRIVER, "volumeHandle": f"{Late.FILE_SYSTEM}::{Late.access_point(claim.purpose)}"},
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
            "storageClassName": class_name(context),
            "volumeName": volume_name(context, claim),
        },
    }
