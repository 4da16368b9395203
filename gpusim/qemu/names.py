"""Names of QEMU's migration parameters and capabilities, 2.6 to 11.1.

Source: qapi/migration.json:MigrationParameter and MigrationCapability. The names of 7.2 and 10.0
are those that query-migrate-parameters and query-migrate-capabilities list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from gpusim.shapes import OneOf, Shape, Text

SIMILAR = 0.8  # difflib's ratio
_PARAMETERS = """announce-initial announce-max announce-rounds announce-step avail-switchover-bandwidth
    block-bitmap-mapping block-incremental compress-level compress-threads compress-wait-thread
    cpr-exec-command cpu-throttle-increment cpu-throttle-initial cpu-throttle-tailslow decompress-threads
    direct-io downtime-limit max-bandwidth max-cpu-throttle max-postcopy-bandwidth mode multifd-channels
    multifd-compression multifd-qatzip-level multifd-zlib-level multifd-zstd-level
    throttle-trigger-threshold tls-authz tls-creds tls-hostname vcpu-dirty-limit x-checkpoint-delay
    x-cpu-throttle-increment x-cpu-throttle-initial x-multifd-channels x-multifd-page-count
    x-rdma-chunk-size x-vcpu-dirty-limit-period xbzrle-cache-size zero-page-detection"""
_CAPABILITIES = """auto-converge background-snapshot block compress dirty-bitmaps dirty-limit events
    late-block-activate mapped-ram multifd pause-before-switchover postcopy-blocktime postcopy-preempt
    postcopy-ram rdma-pin-all release-ram return-path switchover-ack validate-uuid x-colo
    x-ignore-shared x-multifd xbzrle zero-blocks zero-copy-send"""
# Capabilities that change the bytes on the link or the slow-down of the guest. gpusim simulates
# none of them. It simulates multifd, but not in every version. A post-copy that never starts is
# precopy. versions.py says what the capability postcopy-ram changes in precopy.
_NOT_SIMULATED = "background-snapshot compress dirty-limit mapped-ram x-colo x-ignore-shared xbzrle"
# Parameters whose values are names. An empty tls-creds means no TLS.
# Source: qapi/migration.json:MultiFDCompression, ZeroPageDetection.
CHOICES: Mapping[str, Shape] = {
    "multifd-compression": OneOf(("none", "zlib", "zstd", "qatzip", "qpl", "uadk")),
    "zero-page-detection": OneOf(("none", "legacy", "multifd")),
    "tls-creds": Text(),
}
POSTCOPY = "postcopy-ram"
PARAMETERS = frozenset(_PARAMETERS.split())
CAPABILITIES = frozenset(_CAPABILITIES.split())
NOT_SIMULATED = frozenset(_NOT_SIMULATED.split())


def suggest_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is most similar to an unknown name.

    Returns:
        The name, or None if `name` is known or no known name is similar.
    """
    if name in known:
        return None
    plain = name.lower().replace("_", "-")
    return next(iter(get_close_matches(plain, known, n=1, cutoff=SIMILAR)), None)


def find_unknown(names: Collection[str], known: Collection[str]) -> list[str]:
    """Return the unknown names, sorted. They are mistyped, or belong to a newer QEMU."""
    return sorted(set(names).difference(known))
