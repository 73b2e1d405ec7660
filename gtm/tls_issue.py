"""Certificates made: an authority of one's own, and what it signs for parts and people.

ECDSA on P-256 (FIPS 186-5), X.509 v3 (RFC 5280). An authority signs end certificates alone (path
length 0), and each of those is for one identity (`tls_identity`) and for no more than it needs:
agents, resolvers and operators are clients only, coordinators and etcd servers too. Touches no
file: PEM in, PEM out.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from gtm.tls_identity import Identity, parse

BACKDATED_S = 2 * 3600.0
"""A certificate begins so long before it is made: a clock that is an hour behind takes it too."""
ETCD_USERS = ("coordinator", "resolver")
"""Kinds that etcd knows by name: gtm-coordinator and gtm-resolver."""
SERVERS = ("coordinator", "etcd")
"""Kinds that others connect to; their certificates carry names and addresses."""

_HOST = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?"
)


class Pair(Struct, frozen=True, kw_only=True):
    """A certificate and its key as PEM."""

    cert: bytes
    key: bytes


class Told(Struct, frozen=True, kw_only=True):
    """What a certificate says; times are Unix time, `names` are its names and addresses."""

    subject: str
    issuer: str
    identity: Identity | None
    names: tuple[str, ...]
    authority: bool
    begins: float
    ends: float
    serial: str
    fingerprint: str


def authority(name: str, *, now_s: float, for_s: float) -> Pair:
    """A new authority that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    public = key.public_key()
    made = (
        _begun(subject, subject, public, now_s, for_s)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(made, key)


def issue(
    by: Pair,
    identity: Identity,
    *,
    names: Iterable[str] = (),
    common_name: str = "",
    now_s: float,
    for_s: float,
) -> Pair:
    """A certificate of `identity`, signed by the authority `by`, with a new key.

    `names` are host names and IP addresses. `common_name` is for etcd, which takes it for the name
    of a user; else the identity's own words stand there. Never outlives the authority. ValueError
    for a name that is none, for an authority that has ended, and where `by` is no authority.
    """
    signer = x509.load_pem_x509_certificate(by.cert)
    signing = serialization.load_pem_private_key(by.key, None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey) or not _signs(signer):
        raise ValueError("what should sign is no authority of ours")
    if signing.public_key() != signer.public_key():
        raise ValueError("the authority's key is not that of its certificate")
    left_s = signer.not_valid_after_utc.timestamp() - now_s
    if left_s <= 0:
        raise ValueError("the authority itself has ended: make a new one")
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = _subject(common_name or _common_name(identity))
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.kind in SERVERS:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    alternatives = [x509.UniformResourceIdentifier(str(identity)), *map(_name, names)]
    made = (
        _begun(subject, signer.subject, public, now_s, min(for_s, left_s))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
        .sign(signing, hashes.SHA256())
    )
    return _pair(made, key)


def told(pem: bytes) -> Told:
    """What the first certificate in `pem` says; ValueError where there is none."""
    found = x509.load_pem_x509_certificates(pem)[0]
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        alternatives = list(extension.value)
    except x509.ExtensionNotFound:
        alternatives = []
    uris = [one.value for one in alternatives if isinstance(one, x509.UniformResourceIdentifier)]
    ours = [uri for uri in uris if uri.startswith("gtm:")]
    names = [
        str(one.value) for one in alternatives if isinstance(one, x509.DNSName | x509.IPAddress)
    ]
    return Told(
        subject=_words(found.subject),
        issuer=_words(found.issuer),
        identity=parse(ours[0]) if len(ours) == 1 else None,
        names=tuple(names),
        authority=_signs(found),
        begins=found.not_valid_before_utc.timestamp(),
        ends=found.not_valid_after_utc.timestamp(),
        serial=f"{found.serial_number:x}",
        fingerprint=found.fingerprint(hashes.SHA256()).hex(),
    )


def common_name(pem: bytes) -> str:
    """The common name of the first certificate in `pem`; "" where it has none."""
    subject = x509.load_pem_x509_certificates(pem)[0].subject
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def signed(pem: bytes, by: bytes) -> bool:
    """Whether the authority `by` has signed the first certificate in `pem`."""
    try:
        x509.load_pem_x509_certificates(pem)[0].verify_directly_issued_by(
            x509.load_pem_x509_certificates(by)[0]
        )
    except Exception:  # ValueError, TypeError, InvalidSignature: it has not
        return False
    return True


def _common_name(identity: Identity) -> str:
    """What etcd may take for a user's name: two users for two kinds of part, and nobody else's.

    A name that somebody chose never stands alone here, for one could choose `root`.
    """
    if identity.kind in ETCD_USERS:
        return f"gtm-{identity.kind}"
    parts = (identity.kind, identity.region, identity.name)
    return " ".join(part for part in parts if part)[:64]


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _words(name: x509.Name) -> str:
    return name.rfc4514_string()


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        if not _HOST.fullmatch(text) or len(text) > 253:
            raise ValueError(f"{text!r} is neither a host name nor an IP address") from None
        return x509.DNSName(text)


def _signs(found: x509.Certificate) -> bool:
    try:
        return found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now_s: float,
    for_s: float,
) -> x509.CertificateBuilder:
    def at(unix_s: float) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(int(unix_s), datetime.UTC)

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at(now_s - BACKDATED_S))
        .not_valid_after(at(now_s + for_s))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = serialization.Encoding.PEM
    return Pair(
        cert=made.public_bytes(pem),
        key=key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
