"""The names of QEMU's migration parameters and capabilities, 2.6 to 10.1.

Source: qapi/migration.json:MigrationParameter and MigrationCapability; those of 7.2 and 10.0 as
query-migrate-parameters and query-migrate-capabilities of both list them.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

ALIKE = 0.8  # difflib's ratio
_PARAMETERS = """announce-initial announce-max announce-rounds announce-step avail-switchover-bandwidth
    block-bitmap-mapping block-incremental compress-level compress-threads compress-wait-thread
    cpr-exec-command cpu-throttle-increment cpu-throttle-initial cpu-throttle-tailslow decompress-threads
    direct-io downtime-limit max-bandwidth max-cpu-throttle max-postcopy-bandwidth mode multifd-channels
    multifd-compression multifd-qatzip-level multifd-zlib-level multifd-zstd-level
    throttle-trigger-threshold tls-authz tls-creds tls-hostname vcpu-dirty-limit x-checkpoint-delay
    x-cpu-throttle-increment x-cpu-throttle-initial x-multifd-channels x-multifd-page-count
    x-vcpu-dirty-limit-period xbzrle-cache-size zero-page-detection"""
_CAPABILITIES = """auto-converge background-snapshot block compress dirty-bitmaps dirty-limit events
    late-block-activate mapped-ram multifd pause-before-switchover postcopy-blocktime postcopy-preempt
    postcopy-ram rdma-pin-all release-ram return-path switchover-ack validate-uuid x-colo
    x-ignore-shared x-multifd xbzrle zero-blocks zero-copy-send"""
# What changes the bytes on the wire or how the guest is slowed, and is not simulated; multifd is, of some versions.
_NOT_SIMULATED = """background-snapshot compress dirty-limit mapped-ram postcopy-ram x-colo x-ignore-shared
    xbzrle"""
PARAMETERS = frozenset(_PARAMETERS.split())
CAPABILITIES = frozenset(_CAPABILITIES.split())
NOT_SIMULATED = frozenset(_NOT_SIMULATED.split())


def meant(name: str, known: Collection[str]) -> str | None:
    """The known name that an unknown one was to be; None: it is known, or like none of them."""
    if name in known:
        return None
    plain = name.lower().replace("_", "-")
    return next(iter(get_close_matches(plain, known, n=1, cutoff=ALIKE)), None)


def unknown(names: Collection[str], known: Collection[str]) -> list[str]:
    """Those that are not known, sorted: of a newer QEMU, or mistyped."""
    return sorted(set(names).difference(known))
