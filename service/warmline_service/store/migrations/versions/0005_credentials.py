"""Model credentials that are stored for tenants"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "credentials",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("subscription_type", sa.String(length=64), nullable=False),
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("updated_at", sa.Float(precision=53), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=True),
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.Column("refreshed_at", sa.Float(precision=53), nullable=True),
        sa.Column("claimed_until", sa.Float(precision=53), nullable=False),
        sa.Column("failure", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_credentials")),
    )
    op.create_index(
        "ix_credentials_default",
        "credentials",
        ["tenant"],
        unique=True,
        sqlite_where=sa.text("is_default"),
        postgresql_where=sa.text("is_default"),
    )
