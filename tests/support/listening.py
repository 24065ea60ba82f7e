"""Which TCP addresses processes listen at, from /proc, as `ss -ltnp` has them."""

import ipaddress
from collections.abc import Iterable
from pathlib import Path

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
LISTENING = "0A"


def listening(pids: Iterable[int]) -> set[IpAddress]:
    """The IP addresses at which these processes listen; an IPv4 address in IPv6 as IPv4."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                found.add(_address(fields[1].partition(":")[0]))
    return found


def _sockets(pid: int) -> list[str]:
    """The inodes of a process's sockets; none if it has ended."""
    try:
        targets = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []
    return [target[8:-1] for target in targets if target.startswith("socket:[")]


def _address(text: str) -> IpAddress:
    # Words of four bytes, each in the order of this machine.
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address
