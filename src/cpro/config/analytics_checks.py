"""What must hold for analytics beyond the type of each setting."""

from collections.abc import Mapping
from typing import Final

from .clickhouse_dsn import parse_dsn
from .faults import Faults, Path
from .model import ClickhouseAnalytics, ConnectionsExport, Export, Exports
from .schema import fields_of

SECRET_HEADERS: Final = frozenset({"Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key", "X-Cpro-Connection"})


def check_analytics(block: ClickhouseAnalytics, raw: Mapping[str, object], path: Path, faults: Faults) -> None:
    exported = [name for name in fields_of(Exports) if _export(block, name).enabled]
    if exported and "enabled" not in raw:
        faults.warn(path, "has no effect until it has `enabled: true`")
    if block.enabled and not exported:
        faults.warn((*path, "export"), "exports nothing: no table has `enabled: true`")
    if block.clickhouse_cluster and not block.clickhouse_dsn:
        faults.warn((*path, "clickhouse_cluster"), "has no effect: the embedded ClickHouse has none")
    _check_servers(block, (*path, "clickhouse_dsn"), faults)
    _warn_of_secrets(block.export.connections, (*path, "export", "connections"), faults)


def _export(block: ClickhouseAnalytics, table: str) -> Export:
    export: Export = getattr(block.export, table)
    return export


def _check_servers(block: ClickhouseAnalytics, path: Path, faults: Faults) -> None:
    for number, dsn in enumerate(block.clickhouse_dsn):
        try:
            _, warnings = parse_dsn(dsn)
        except ValueError as error:
            faults.fault((*path, number), str(error))
        else:
            for warning in warnings:
                faults.warn((*path, number), warning)


def _warn_of_secrets(export: ConnectionsExport, path: Path, faults: Faults) -> None:
    for number, name in enumerate(export.http_headers):
        if export.enabled and name in SECRET_HEADERS:
            faults.warn((*path, "http_headers", number), "exports a secret of the users'")
