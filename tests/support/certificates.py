"""Certificates for test servers, made with openssl; valid for two days."""

import subprocess
from pathlib import Path

Certificate = tuple[Path, Path]
"""Files of a certificate and of its key."""


def issue_certificate(folder: Path, name: str, hosts: str, *options: str | Path) -> Certificate:
    """Make a certificate, self-signed unless ``options`` name another authority.

    Args:
        folder: where its files go.
        name: subject, and name of the files.
        hosts: subjectAltName, such as ``DNS:s3.local,IP:127.0.0.1``.
        options: more of ``openssl req``'s.
    """
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    files: list[str | Path] = ["-out", certificate, "-keyout", key]
    subprocess.run([*command, "-addext", f"subjectAltName={hosts}", *files, *options], check=True, capture_output=True)
    return certificate, key
