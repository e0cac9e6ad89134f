"""Prices in US dollars, each with its date and where it was read. Third-party copies, except where the source
is AWS itself: the plan prints the dates, and says so where it knows no price."""

from datetime import date
from typing import Literal

from pydantic import NonNegativeFloat

from recipe.catalogue.base import Entry, Sources, look_up

PRICE_REGION = "us-east-1"
"""Region of every price below. Others differ, so a plan for another region must say that it estimates with these."""


class Price(Entry):
    name: str
    usd: NonNegativeFloat | None
    """None: no price known."""
    per: Literal["hour", "GB", "GB-month"]
    """GB as AWS bills it: 2^30 bytes for storage and data transfer (docs/unverified.md)."""
    region: str = PRICE_REGION
    as_of: date
    sources: Sources
    note: str = ""


_KARPENTER = "aws/karpenter-provider-aws pkg/providers/pricing/zz_generated.pricing_aws.go@031e72b (made from AWS's price API on 2026-01-19)"
_FACTS = "facts/aws.md §8"
_EFS = "https://www.factualminds.com/blog/amazon-efs-pricing-throughput-modes-storage-classes/ (us-east-1, June 2026)"
_NAT = "https://tech-holder.blogspot.com/2026/03/reduce-aws-nat-gateway-costs-in-multi.html (2026-03)"
_NAT_TOO = "https://www.michal-drozd.com/en/blog/aws-nat-gateway-vs-vpc-endpoints/ (us-east-1)"
_EKS = "https://aws.amazon.com/blogs/containers/amazon-eks-extended-support-for-kubernetes-versions-pricing (0.10, 0.60 in all)"
_EKS_2026 = "https://www.factualminds.com/blog/amazon-eks-pricing-control-plane-addons-auto-mode/ (2026-06-13)"
_IPV4 = "https://www.doit.com/aws-public-ipv4-price-increase-the-complete-guide/ (since 2024-02-01, every region)"

_C3X = "https://c3x.dev/resources/aws/aws_fsx_lustre_file_system/ (us-east-1)"
_CLASSMETHOD = "https://dev.classmethod.jp (FSx for Lustre Persistent 2, table of 2022-09-03, ap-northeast-1)"

_JANUARY_2026 = date(2026, 1, 19)


def _on_demand(name: str, usd: float) -> Price:
    return Price(name=name, usd=usd, per="hour", as_of=_JANUARY_2026, sources=(_KARPENTER,))


def _block(name: str, usd: float | None, as_of: date, note: str) -> Price:
    """Capacity Block, per instance and hour. Paid up front for the whole block, not refundable: destroy saves nothing."""
    return Price(name=f"{name}/capacity-block", usd=usd, per="hour", as_of=as_of, sources=(_FACTS,), note=note)


def _lustre(tier: int, usd: float) -> Price:
    """FSx for Lustre, PERSISTENT_2 on SSD with `tier` MB/s per TiB, from the table's price per hour."""
    note = "of ap-northeast-1, for want of one for us-east-1, where the lowest tier costs a fifth less: an upper bound"
    return Price(
        name=f"fsx-lustre/{tier}",
        usd=round(usd, 3),
        per="GB-month",
        as_of=date(2022, 9, 3),
        sources=(_CLASSMETHOD,),
        note=note,
    )


PRICES: dict[str, Price] = {
    row.name: row
    for row in (
        Price(name="p5.48xlarge", usd=55.04, per="hour", as_of=_JANUARY_2026, sources=(_KARPENTER, _FACTS)),
        Price(
            name="p5e.48xlarge",
            usd=None,
            per="hour",
            as_of=_JANUARY_2026,
            sources=(_KARPENTER, _FACTS),
            note="not in the price list: sold as Capacity Blocks",
        ),
        Price(
            name="p5en.48xlarge",
            usd=63.296,
            per="hour",
            as_of=date(2026, 8, 6),
            sources=(_KARPENTER, "dstackai/dstack #4110 (2026-08-06; the same in us-east-2 and us-west-2)"),
        ),
        Price(name="p6-b200.48xlarge", usd=113.9328, per="hour", as_of=_JANUARY_2026, sources=(_KARPENTER, _FACTS)),
        _block("p5.48xlarge", 39.33, date(2024, 12, 31), "copy of the end of 2024, day not known"),
        _block("p5e.48xlarge", 39.80, date(2026, 1, 1), "news of early 2026, day not known; 34.61 before"),
        _block("p5en.48xlarge", 41.61, date(2026, 1, 1), "news of early 2026, day not known; 36.18 before"),
        _block("p6-b200.48xlarge", None, date(2026, 11, 22), "not found"),
        _on_demand("m7i.xlarge", 0.2016),
        _on_demand("m7i.2xlarge", 0.4032),
        _on_demand("m7i.4xlarge", 0.8064),
        _on_demand("m7i.8xlarge", 1.6128),
        _on_demand("m7i.12xlarge", 2.4192),
        _on_demand("m7i.16xlarge", 3.2256),
        _on_demand("r7i.4xlarge", 1.0584),
        _on_demand("r7i.8xlarge", 2.1168),
        Price(name="eks/standard", usd=0.10, per="hour", as_of=date(2026, 6, 13), sources=(_EKS, _EKS_2026)),
        Price(name="eks/extended", usd=0.60, per="hour", as_of=date(2026, 6, 13), sources=(_EKS, _EKS_2026, _FACTS)),
        Price(name="nat/hour", usd=0.045, per="hour", as_of=date(2026, 3, 1), sources=(_NAT, _NAT_TOO)),
        Price(
            name="nat/gb",
            usd=0.045,
            per="GB",
            as_of=date(2026, 3, 1),
            sources=(_NAT, _NAT_TOO),
            note="each direction counts",
        ),
        Price(name="efs/read-gb", usd=0.03, per="GB", as_of=date(2026, 6, 1), sources=(_EFS, "facts/aws.md §6")),
        Price(name="efs/write-gb", usd=0.06, per="GB", as_of=date(2026, 6, 1), sources=(_EFS, "facts/aws.md §6")),
        Price(
            name="efs/storage-gb-month",
            usd=0.30,
            per="GB-month",
            as_of=date(2026, 6, 1),
            sources=(_EFS, "https://cloudburn.io/blog/amazon-efs-pricing (2026-03-03)"),
        ),
        Price(
            name="fsx-lustre/125",
            usd=0.145,
            per="GB-month",
            as_of=date(2026, 6, 1),
            sources=(_C3X,),
            note="day not known",
        ),
        _lustre(250, 0.93 * 730 / 2400),
        _lustre(500, 1.55 * 730 / 2400),
        _lustre(1000, 5.58 * 730 / 4800),
        Price(name="ipv4/hour", usd=0.005, per="hour", as_of=date(2024, 2, 1), sources=(_IPV4,)),
        Price(
            name="ebs-gp3/gb-month",
            usd=0.08,
            per="GB-month",
            as_of=date(2026, 6, 1),
            sources=(_EFS,),
            note="derived: the source calls EFS at 0.30 four times gp3 and gives no figure; 0.08 is the commonly quoted one",
        ),
    )
}


def price(name: str, region: str = PRICE_REGION) -> Price | None:
    """The price called `name`, or None where the table has none for that region. Raises `UnknownName`."""
    found = look_up("price", PRICES, name)
    return found if found.region == region else None
