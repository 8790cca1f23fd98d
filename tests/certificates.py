"""Certificates of clients with any names in them, by a CA of trustme's."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True)
class Authority:
    """A CA, and the files of a server that trusts its clients."""

    directory: Path
    ca: trustme.CA

    @property
    def file(self) -> Path:
        """The CA's certificate."""
        return self.directory / "ca.pem"

    def tls(self) -> dict[str, Path]:
        """The settings `tls` of a server on localhost that wants certificates of this CA."""
        server = self.ca.issue_cert("localhost")
        key, chain = self.directory / "server.key", self.directory / "server.pem"
        server.private_key_pem.write_to_path(str(key))
        server.cert_chain_pems[0].write_to_path(str(chain))
        return {"certificate": chain, "key": key, "client_ca": self.file}

    def client(self, *names: x509.GeneralName) -> tuple[Path, Path]:
        """A client's chain and key, with these names."""
        own = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signer = load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(signer, hashes.SHA256())
        )
        chain = self.directory / f"{certificate.serial_number}.pem"
        chain.write_bytes(certificate.public_bytes(Encoding.PEM))
        key = chain.with_suffix(".key")
        key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return chain, key


def authority(directory: Path) -> Authority:
    """A new CA, whose files are in a directory."""
    made = Authority(directory, trustme.CA())
    made.ca.cert_pem.write_to_path(str(made.file))
    return made
