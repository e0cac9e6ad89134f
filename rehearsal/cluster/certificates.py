"""Keys and certificates of one control plane: an authority of its own, so nothing else on the machine is trusted or trusts it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SERVER: Final = "server"
"""For whoever listens (API server, etcd), and towards etcd."""
_CLIENTS: Final = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kwok": ("kwok", "system:masters"),
}
"""User and group by who they are for. RBAC knows the system ones (kubernetes.io, Using RBAC Authorization, core component roles)."""


@dataclass(frozen=True)
class Certificates:
    """Where they are."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def accounts_key(self) -> Path:
        """Signs the tokens of service accounts."""
        return self.folder / "accounts.key"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


def make(folder: Path) -> Certificates:
    """Everything new, in `folder`, readable by nobody else."""
    folder.mkdir(mode=0o700)
    found = Certificates(folder)
    authority = trustme.CA(organization_name="dynamo-recipes rehearsal", key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(found.authority)
    issued = {SERVER: authority.issue_cert("127.0.0.1", "localhost", common_name=SERVER)}
    for name, (user, group) in _CLIENTS.items():
        # The name is never looked up: without any, trustme marks an empty list critical, which Go refuses.
        issued[name] = authority.issue_cert(f"{name}.invalid", common_name=user, organization_name=group)
    for name, leaf in issued.items():
        found.certificate(name).write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(found.key(name))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    found.accounts_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    for path in folder.iterdir():
        path.chmod(0o600)
    return found


def kubeconfig(certificates: Certificates, client: str, server: str) -> str:
    """A kubeconfig, as YAML, that lets `client` reach `server`. It names files, so nothing secret stands in it."""
    user = {
        "client-certificate": str(certificates.certificate(client)),
        "client-key": str(certificates.key(client)),
    }
    name = "rehearsal"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority": str(certificates.authority)}}
        ],
        "users": [{"name": client, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": client}}],
        "current-context": name,
    }
    return yaml.safe_dump(config, sort_keys=False)
