"""Regions and availability zones, by zone **id**: the names (us-east-2a) mean different zones in different accounts."""

from __future__ import annotations

from recipe.catalogue.base import Entry, Sources, look_up

_ZONE_IDS = "https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-availability-zones.html"
_EKS = "awsdocs/amazon-eks-user-guide latest/ug/networking/network-reqs.adoc@101184e (zones EKS does not take)"
_P5EN = "dstackai/dstack #4110, 2026-08-06 (p5en offered)"
_PRICED = (
    "aws/karpenter-provider-aws pkg/providers/pricing/zz_generated.pricing_aws.go@031e72b (p5, p5en, p6-b200 priced)"
)
_CFN_LINT = "facts/aws-checks.md (cfn-lint accepts p5, p5en and p6-b200 here)"


class Zone(Entry):
    id: str
    region: str
    eks: bool
    """Whether EKS takes a subnet there, for the control plane or for nodes."""


class Region(Entry):
    name: str
    prefix: str
    """What the ids of its zones start with."""
    zones: tuple[Zone, ...]
    sources: Sources


def _region(name: str, prefix: str, numbers: tuple[int, ...], *sources: str, refused: tuple[int, ...] = ()) -> Region:
    return Region(
        name=name,
        prefix=prefix,
        zones=tuple(Zone(id=f"{prefix}-az{number}", region=name, eks=number not in refused) for number in numbers),
        sources=(_ZONE_IDS, _EKS, *sources),
    )


# Regions where a P5 or P6 type is known to be offered. Another one is one line here, with its source.
REGIONS: dict[str, Region] = {
    row.name: row
    for row in (
        _region("us-east-1", "use1", (1, 2, 3, 4, 5, 6), _PRICED, _P5EN, "facts/aws.md §3 (use1-az3)", refused=(3,)),
        _region("us-east-2", "use2", (1, 2, 3), _CFN_LINT, _P5EN),
        _region("us-west-2", "usw2", (1, 2, 3, 4), _CFN_LINT, _P5EN),
        # Every account sees two of the three zones here.
        _region("us-west-1", "usw1", (1, 2, 3), _P5EN, refused=(2,)),
        _region("eu-north-1", "eun1", (1, 2, 3), _P5EN),
    )
}
ZONES: dict[str, Zone] = {row.id: row for region in REGIONS.values() for row in region.zones}


def region(name: str) -> Region:
    """The region of that name. Raises `UnknownName`."""
    return look_up("region", REGIONS, name)


def zones(region_name: str) -> tuple[Zone, ...]:
    """The zones of a region. Raises `UnknownName`."""
    return region(region_name).zones


def zone(zone_id: str) -> Zone:
    """The zone of that id. Raises `UnknownName`."""
    return look_up("zone id", ZONES, zone_id)


def region_of(zone_id: str) -> str:
    """Name of the region a zone is in. Raises `UnknownName`."""
    return zone(zone_id).region


def second_zone(zone_id: str) -> str:
    """The zone for the control-plane-only subnet: the first other one of the region that EKS takes. Raises `UnknownName`."""
    # Every region of the table has two such zones (tested), so there always is one.
    return next(other.id for other in zones(region_of(zone_id)) if other.eks and other.id != zone_id)
