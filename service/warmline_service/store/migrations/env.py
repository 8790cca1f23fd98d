"""Alembic runs this: the migrations go through the connection that the service has already."""

from alembic import context

from warmline_service.store._schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
