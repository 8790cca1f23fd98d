"""What tenants use, and the root key of the vault"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_COUNTS = (
    *("turns", "requests", "input", "output"),
    *("cache_read", "cache_creation", "micro_usd"),
)


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "usage",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        *(sa.Column(name, _BIG, nullable=False) for name in _COUNTS),
        sa.PrimaryKeyConstraint("tenant", "day", "model", name=op.f("pk_usage")),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("tokens", _BIG, nullable=False),
        sa.Column("micro_usd", _BIG, nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
    )
    for column in ("tenant", "expires_at"):
        op.create_index(op.f(f"ix_reservations_{column}"), "reservations", [column])
    op.create_table(
        "settlements",
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("batch", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_settlements")),
    )
    op.create_table(
        "vault_roots",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vault_roots")),
    )
