"""Users of an etcd of our own: who may read and write what, switched on once.

    gtm-coordinator   reads and writes /gtm/v1/
    gtm-resolver      reads /gtm/v1/serve/, all that resolvers need, and writes nothing

Users have no password: etcd takes the common name of the client certificate for the user
(`--client-cert-auth`). docs/deploy.md has the same as commands for an etcd of others, which this
never touches.
"""

from __future__ import annotations

import contextlib

from . import keys
from .errors import StoreError
from .etcd_link import Answered, Asked, Link, Method
from .etcd_options import EtcdOptions
from .etcd_wire import prefix_range
from .v1 import etcd_pb2 as pb

COORDINATOR = "gtm-coordinator"
RESOLVER = "gtm-resolver"
ROOT = "root"
"""etcd's own administrator; without one authentication can't be switched on."""

USER_ADD = Method("/etcdserverpb.Auth/UserAdd", pb.AuthUserAddRequest, pb.AuthUserAddResponse)
USER_GRANT = Method(
    "/etcdserverpb.Auth/UserGrantRole", pb.AuthUserGrantRoleRequest, pb.AuthUserGrantRoleResponse
)
ROLE_ADD = Method("/etcdserverpb.Auth/RoleAdd", pb.AuthRoleAddRequest, pb.AuthRoleAddResponse)
ROLE_GRANT = Method(
    "/etcdserverpb.Auth/RoleGrantPermission",
    pb.AuthRoleGrantPermissionRequest,
    pb.AuthRoleGrantPermissionResponse,
)
ENABLE = Method("/etcdserverpb.Auth/AuthEnable", pb.AuthEnableRequest, pb.AuthEnableResponse)

_THERE = "already exist"

GRANTS = (
    (COORDINATOR, pb.Permission.READWRITE, keys.ROOT),
    (RESOLVER, pb.Permission.READ, keys.SERVE),
)
"""(user and role, permission, prefix)."""


async def set_up(options: EtcdOptions) -> None:
    """Make the users and their roles, and switch authentication on. Raises StoreError.

    `options` are those of `root`, by certificate. What is there already is left as it is.
    """
    link = Link(options)
    try:
        await _enabled(link)
    finally:
        await link.close()


async def _enabled(link: Link) -> None:
    with contextlib.suppress(StoreError):
        # Works only with root there, which is made last: so everything is.
        await link.call(ENABLE, pb.AuthEnableRequest())
        return
    for name, kind, prefix in GRANTS:
        await _made(link, ROLE_ADD, pb.AuthRoleAddRequest(name=name))
        start, end = prefix_range(prefix)
        allowed = pb.Permission(permType=kind, key=start, range_end=end)
        await link.call(ROLE_GRANT, pb.AuthRoleGrantPermissionRequest(name=name, perm=allowed))
        await _user(link, name)
    await _made(link, ROLE_ADD, pb.AuthRoleAddRequest(name=ROOT))
    await _user(link, ROOT)
    await link.call(ENABLE, pb.AuthEnableRequest())


async def _user(link: Link, name: str) -> None:
    """A user without a password, with the role of the same name."""
    asked = pb.AuthUserAddRequest(name=name, options=pb.UserAddOptions(no_password=True))
    await _made(link, USER_ADD, asked)
    await link.call(USER_GRANT, pb.AuthUserGrantRoleRequest(user=name, role=name))


async def _made(link: Link, method: Method[Asked, Answered], request: Asked) -> None:
    try:
        await link.call(method, request)
    except StoreError as error:
        if _THERE not in str(error):
            raise
