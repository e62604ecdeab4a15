"""Keys and certificates of a throw-away cluster: one authority, and what it signs.

Owns their making; everything is valid for a few days and lives in one folder.
"""

import base64
import datetime as dt
import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=7)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str, organisations: tuple[str, ...] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organisations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass
class Authority:
    """A certificate authority in `folder`; `issue` writes `<name>.crt` and `<name>.key` beside `ca.crt`."""

    folder: Path
    _key: ec.EllipticCurvePrivateKey = field(init=False)
    _subject: x509.Name = field(init=False)

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("astrid-test-authority")
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        builder = self._builder(self._subject, self._key).add_extension(usage, critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(own, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write("ca", builder, self._key)

    def issue(
        self, name: str, common_name: str, *, organisations: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> None:
        """A client certificate for the user `common_name` in the groups `organisations`; with `names` a server's too."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if names else [])
        builder = self._builder(_name(common_name, organisations), key)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(signer, critical=False)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False
            )
        self._write(name, builder, key)

    def key_pair(self, name: str) -> None:
        """A bare key pair, `<name>.key` and `<name>.pub`, for signing service account tokens."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.folder / f"{name}.key").write_bytes(_pem(key))
        (self.folder / f"{name}.pub").write_bytes(public)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return x509.CertificateBuilder(
            issuer_name=self._subject,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - dt.timedelta(hours=1),
            not_valid_after=now + _LIFETIME,
        )

    def _write(self, name: str, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> None:
        certificate = builder.sign(self._key, hashes.SHA256())
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.folder / f"{name}.key").write_bytes(_pem(key))


def write_kubeconfig(
    path: Path, server: str, authority: Path, user: dict[str, Any], namespace: str = "default"
) -> Path:
    """A kubeconfig at `path` that carries everything inside it (JSON is YAML)."""
    cluster = {"server": server, "certificate-authority-data": base64_of(authority)}
    context = {"cluster": "astrid-test", "user": "user", "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "astrid-test",
        "clusters": [{"name": "astrid-test", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "astrid-test", "context": context}],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    path.chmod(0o600)
    return path


def base64_of(path: Path) -> str:
    """The bytes of `path` as kubeconfig holds them."""
    return base64.b64encode(path.read_bytes()).decode()
