"""The packages that some formats need, and that not everyone has."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Final

from sgformer.errors import InputError

# Any one of a format's packages will do.
PACKAGES: Final = {"openvino": ("openvino",), "tensorrt": ("tensorrt_rtx", "tensorrt")}


def check_packages(formats: Iterable[str]) -> None:
    """Raises InputError if a package that a format needs is not installed."""
    for name in formats:
        packages = PACKAGES.get(name, ())
        if packages and not any(map(find_spec, packages)):
            raise InputError(
                f"the format {name} needs the package {' or '.join(packages)}, which is not "
                f"installed: pip install -c constraints.txt '.[{name}]'"
            )
