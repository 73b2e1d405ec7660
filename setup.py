"""What pyproject.toml cannot say of building the native responder.

Without cargo the package is built without it. Where cargo is, a crate that does not compile fails
the build: `optional` alone would go on with whatever an earlier build left behind.
"""

import os
import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools_rust import build_rust

ROOT = Path(__file__).parent


class BuildNative(build_rust):
    """Builds `resolver/_native` if cargo is there and `GTM_NATIVE` is not `off`."""

    def run(self) -> None:
        off = os.environ.get("GTM_NATIVE") == "off"
        package = (ROOT if self.inplace else self._build_lib()) / "resolver"
        if not (off and self.inplace):
            for stale in (*package.glob("_native*.so"), package / "native.digest"):
                stale.unlink(missing_ok=True)
        if off:
            return
        if shutil.which(os.environ.get("CARGO", "cargo")) is None:
            print("no cargo here: building without the native responder")
            return
        for extension in self.distribution.rust_extensions:
            extension.optional = False
        super().run()
        if not self.inplace:
            reckon = runpy.run_path(str(ROOT / "resolver" / "native_digest.py"))["digest"]
            (package / "native.digest").write_text(reckon(ROOT / "native") + "\n")

    def _build_lib(self) -> Path:
        return Path(self.get_finalized_command("build").build_lib)


setup(cmdclass={"build_rust": BuildNative})
