"""`gtm ca`: an authority of one's own, the certificates that it issues and renews, and tokens."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import secrets
import time
from pathlib import Path
from typing import Any

from gtm.errors import StartError
from gtm.tls_identity import ROLES, Identity, Role
from gtm.tls_issue import SERVERS, Told, told
from gtm.units import Duration

from .. import show
from ..authority import CA, CA_FOR_S, FOR_S, RENEW_SHARE, Authority, due, life_s

DIRECTORY = "tls"
"""The folder of the authority unless told."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of a server's certificate unless told."""
MAX_DAYS = 40 * 365
"""The longest life that is given."""
TOKEN_BYTES = 32
"""Chance in a token."""


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """One flag set for each of init, issue, renew, show and token."""
    parser.description = "make an authority, issue and renew certificates, draw tokens"
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = actions.add_parser("init", help="make an authority", allow_abbrev=False)
    _directory(init)
    _life(init, CA_FOR_S)
    init.add_argument("--name", default="Meridian GTM", help="its name (default: Meridian GTM)")
    _force(init)

    issue = actions.add_parser("issue", help="issue a certificate", allow_abbrev=False)
    kinds = issue.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, text in (
        ("agent", "of a region, or one of its agents with --id"),
        ("coordinator", "a server, named as agents and operators reach it"),
        ("resolver", "reports to coordinators, reads etcd"),
        ("operator", "a person or a tool, with a role"),
        ("etcd", "a member of etcd, named as others reach it"),
    ):
        one = kinds.add_parser(kind, help=text, allow_abbrev=False)
        _directory(one)
        _life(one, FOR_S)
        if kind == "agent":
            one.add_argument("--region", required=True, help="the only one that it may vote for")
            one.add_argument("--id", default="", help="the only agent that may use it")
        else:
            one.add_argument("--name", default="", help=f"default: {_default_name(kind)}")
        if kind == "operator":
            one.add_argument("--role", required=True, choices=ROLES)
        if kind in SERVERS:
            one.add_argument(
                "--host", action="append", default=[], metavar="NAME|ADDRESS",
                help=f"as it is reached; may be repeated (default: {', '.join(LOOPBACK)})",
            )  # fmt: skip
        else:
            one.set_defaults(host=[])
        one.add_argument(
            "--etcd-user", default="", metavar="USER",
            help="whom etcd takes the bearer for (default for coordinators and resolvers: "
            "gtm-KIND)",
        )  # fmt: skip
        one.add_argument(
            "--out", default="", metavar="STEM", help="write STEM.pem and STEM.key, not into --dir"
        )
        _force(one)

    renew = actions.add_parser("renew", help="issue again what ends soon", allow_abbrev=False)
    renew.add_argument("file", nargs="*", help="certificates; default: all of the folder")
    _directory(renew)
    renew.add_argument(
        "--all", action="store_true",
        help="whatever time is left (default: when a third of its life is)",
    )  # fmt: skip

    shown = actions.add_parser("show", help="what a certificate says", allow_abbrev=False)
    shown.add_argument("file", nargs="+")
    shown.add_argument("-o", dest="form", choices=("table", "json"), default="table")

    token = actions.add_parser("token", help="draw an operator's token", allow_abbrev=False)
    token.add_argument("--name", required=True, help="of the operator")
    token.add_argument("--role", required=True, choices=ROLES)


def run(args: argparse.Namespace) -> int:
    """Do what is asked."""
    return {"init": _init, "issue": _issue, "renew": _renew, "show": _show, "token": _token}[
        args.action
    ](args)


def _init(args: argparse.Namespace) -> int:
    made = Authority(Path(args.dir)).init(args.name, for_s=_seconds(args), force=args.force)
    print(f"{Path(args.dir) / CA}.pem  {made.subject}, until {_date(made.ends)}")
    print(f"{Path(args.dir) / CA}.key  its key: who has it can be everybody; keep it off the hosts")
    return 0


def _issue(args: argparse.Namespace) -> int:
    identity = _identity(args)
    path = Authority(Path(args.dir)).issue(
        identity,
        names=args.host or (LOOPBACK if args.kind in SERVERS else ()),
        common_name=args.etcd_user,
        for_s=_seconds(args),
        to=Path(args.out) if args.out else None,
        force=args.force,
    )
    made = told(path.read_bytes())
    names = f" for {', '.join(made.names)}" if made.names else ""
    print(f"{path}  {identity}{names}, until {_date(made.ends)}")
    print(f"{path.with_suffix('.key')}  its key")
    return 0


def _identity(args: argparse.Namespace) -> Identity:
    try:
        if args.kind == "agent":
            return Identity(kind="agent", region=args.region, name=args.id)
        role: Role | None = args.role if args.kind == "operator" else None
        return Identity(kind=args.kind, name=args.name or _default_name(args.kind), role=role)
    except ValueError as error:
        raise StartError(str(error), 2) from None


def _default_name(kind: str) -> str:
    if kind != "operator":
        return kind
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def _renew(args: argparse.Namespace) -> int:
    authority = Authority(Path(args.dir))
    for path in [Path(file) for file in args.file] or authority.issued():
        if authority.renew(path, share=1.0 if args.all else RENEW_SHARE):
            print(f"{path}  renewed until {_date(told(path.read_bytes()).ends)}")
        else:
            print(f"{path}  good until {_date(told(path.read_bytes()).ends)}: nothing to do")
    return 0


def _show(args: argparse.Namespace) -> int:
    rows = [(file, _told(file)) for file in args.file]
    if args.form == "json":
        print(show.as_json([_plain(file, one) for file, one in rows]))
        return 0
    for file, one in rows:
        now_s = time.time()
        left = one.ends - now_s
        state = f"{show.span(left)} left" if left > 0 else show.colour("ended", "red")
        if left > 0 and due(one, now_s):
            state = show.colour(f"{state}: renew it", "yellow")
        who = "an authority" if one.authority else str(one.identity or "no identity of ours")
        print(f"{file}")
        for what, text in (
            ("for", who),
            ("names", ", ".join(one.names)),
            ("subject", one.subject),
            ("signed by", one.issuer),
            ("from", _date(one.begins)),
            ("until", f"{_date(one.ends)} ({state})"),
            ("serial", one.serial),
            ("sha-256", one.fingerprint),
        ):
            if text:
                print(f"  {what:10}{text}")
    return 0


def _told(file: str) -> Told:
    try:
        return told(Path(file).read_bytes())
    except OSError as error:
        raise StartError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"{file} holds no certificate ({error})") from None


def _plain(file: str, one: Told) -> dict[str, Any]:
    return {
        "file": file,
        "identity": str(one.identity) if one.identity else "",
        "authority": one.authority,
        "names": list(one.names),
        "subject": one.subject,
        "issuer": one.issuer,
        "begins": one.begins,
        "ends": one.ends,
        "life_s": life_s(one),
        "serial": one.serial,
        "fingerprint": one.fingerprint,
    }


def _token(args: argparse.Namespace) -> int:
    try:
        Identity(kind="operator", name=args.name, role=args.role)
    except ValueError as error:
        raise StartError(str(error), 2) from None
    token = secrets.token_urlsafe(TOKEN_BYTES)
    print(f"GTM_TOKEN={token}")
    print(f"{args.name} {args.role} {hashlib.sha256(token.encode()).hexdigest()}")
    show.warn("the first line is the operator's alone, the second goes into the file of --tokens")
    return 0


# ---- flags ---------------------------------------------------------------------------------------


def _directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir", default=DIRECTORY, help=f"folder of the authority (default: ./{DIRECTORY})"
    )


def _force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def _life(parser: argparse.ArgumentParser, default_s: float) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--days", type=int, metavar="N", help=f"how long it lasts (default: {default_s / 86400:g})"
    )
    group.add_argument("--for", dest="life", metavar="TIME", help="the same as 90m, 12h or 7d")
    parser.set_defaults(default_s=default_s)


def _seconds(args: argparse.Namespace) -> float:
    if args.life:
        try:
            seconds: float = Duration.parse(args.life).s
        except ValueError as error:
            raise StartError(f"--for: {error}", 2) from None
        if seconds < 1:
            raise StartError("--for: a certificate lasts a second at least", 2)
        return seconds
    if args.days is None:
        default_s: float = args.default_s
        return default_s
    if not 1 <= args.days <= MAX_DAYS:
        raise StartError(f"--days: from 1 to {MAX_DAYS}", 2)
    return int(args.days) * 86_400.0


def _date(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))
