-- Version 1 of schema rowseal: what the server itself must know of sealed cells, and the registry.
-- Runs inside a transaction with search_path = pg_catalog; needs CREATE on the database, not superuser.
-- A domain here is named text: pg_catalog types are written with their schema. Cell layout: docs/format.md.

-- Functions ---------------------------------------------------------------------------------------------------------

-- Magic, version, token length, and room for every field of the format. Guards come before what they guard.
CREATE FUNCTION rowseal.is_cell(cell pg_catalog.bytea) RETURNS pg_catalog.bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN cell IS NULL THEN true
    WHEN octet_length(cell) < 109 THEN false
    WHEN substring(cell FROM 1 FOR 4) <> decode('c1525301', 'hex') THEN false
    WHEN get_byte(cell, 6) NOT IN (0, 16) THEN false
    WHEN octet_length(cell) < 108 + get_byte(cell, 6) + get_byte(cell, 7) THEN false
    ELSE octet_length(cell) >= 108 + get_byte(cell, 6) + get_byte(cell, 7)
        + 256 * get_byte(cell, 41 + get_byte(cell, 6) + get_byte(cell, 7))
        + get_byte(cell, 42 + get_byte(cell, 6) + get_byte(cell, 7))
END;

-- The equality token of a cell, NULL when it has none. Not strict, so that the planner inlines it.
CREATE FUNCTION rowseal.eq(cell pg_catalog.bytea) RETURNS pg_catalog.bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN substring(cell FROM 7 FOR 1) = decode('10', 'hex') THEN substring(cell FROM 9 FOR 16) END;

-- A cell with its row's tenant in front: 4-byte length (-1 for NULL), the name in UTF-8, the cell.
CREATE FUNCTION rowseal.with_tenant(cell pg_catalog.bytea, tenant pg_catalog.text) RETURNS pg_catalog.bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN cell IS NULL THEN NULL
    WHEN tenant IS NULL THEN int4send(-1) || cell
    ELSE int4send(octet_length(convert_to(tenant, 'UTF8'))) || convert_to(tenant, 'UTF8') || cell
END;

-- Raises a refusal of the proxy as an error of the server's own, in its place among the replies.
CREATE FUNCTION rowseal.refuse(
    sqlstate pg_catalog.text, message pg_catalog.text, detail pg_catalog.text, hint pg_catalog.text
) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
AS $body$
#variable_conflict use_variable
BEGIN
    IF coalesce(detail, '') = '' AND coalesce(hint, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = $1, MESSAGE = $2;
    ELSIF coalesce(hint, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = $1, MESSAGE = $2, DETAIL = $3;
    ELSIF coalesce(detail, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = $1, MESSAGE = $2, HINT = $4;
    ELSE
        RAISE EXCEPTION USING ERRCODE = $1, MESSAGE = $2, DETAIL = $3, HINT = $4;
    END IF;
END
$body$;

-- Storage types: one domain for each logical type ------------------------------------------------------------------

CREATE DOMAIN rowseal.text AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.varchar AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.int4 AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.int8 AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.bool AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.date AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.timestamptz AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.numeric AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.uuid AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.jsonb AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));
CREATE DOMAIN rowseal.bytea AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value));

-- The registry -------------------------------------------------------------------------------------------------------

-- Names this protected database in the tags of its master keys.
CREATE TABLE rowseal.installation (
    only_row pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (only_row),
    id       pg_catalog.uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO rowseal.installation DEFAULT VALUES;

-- A tenant in state registering has an intent and perhaps a key in the KMS, but nothing that may be used.
CREATE TABLE rowseal.tenant (
    id         pg_catalog.uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       pg_catalog.text NOT NULL UNIQUE,
    wrapping   pg_catalog.text NOT NULL CHECK (wrapping IN ('direct', 'hierarchical')),
    state      pg_catalog.text NOT NULL DEFAULT 'registering' CHECK (state IN ('registering', 'active')),
    intent     pg_catalog.uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    created_at pg_catalog.timestamptz NOT NULL DEFAULT now()
);

-- Versions of master keys. Deactivated ones stay, for restored backups.
CREATE TABLE rowseal.master_key (
    key_id     pg_catalog.bytea PRIMARY KEY CHECK (octet_length(key_id) = 16),
    tenant     pg_catalog.text NOT NULL REFERENCES rowseal.tenant (name),
    version    pg_catalog.int4 NOT NULL CHECK (version > 0),
    provider   pg_catalog.text NOT NULL,
    arn        pg_catalog.text NOT NULL UNIQUE,
    state      pg_catalog.text NOT NULL CHECK (state IN ('active', 'retiring', 'deactivated', 'purged')),
    intent     pg_catalog.uuid NOT NULL UNIQUE,
    canary     pg_catalog.bytea NOT NULL,
    created_at pg_catalog.timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, version)
);
CREATE UNIQUE INDEX master_key_active ON rowseal.master_key (tenant) WHERE state = 'active';

-- Keys of a tenant that are wrapped by its master key: branch keys (wrap) and index roots (index).
CREATE TABLE rowseal.branch_key (
    key_id     pg_catalog.bytea PRIMARY KEY CHECK (octet_length(key_id) = 16),
    tenant     pg_catalog.text NOT NULL REFERENCES rowseal.tenant (name),
    purpose    pg_catalog.text NOT NULL CHECK (purpose IN ('wrap', 'index')),
    master_key pg_catalog.bytea NOT NULL REFERENCES rowseal.master_key (key_id),
    wrapped    pg_catalog.bytea NOT NULL,
    state      pg_catalog.text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'retired')),
    created_at pg_catalog.timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX branch_key_active ON rowseal.branch_key (tenant, purpose) WHERE state = 'active';

CREATE TABLE rowseal.rotation (
    id          pg_catalog.uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant      pg_catalog.text NOT NULL REFERENCES rowseal.tenant (name),
    state       pg_catalog.text NOT NULL,
    intent      pg_catalog.uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    old_key     pg_catalog.bytea REFERENCES rowseal.master_key (key_id),
    new_key     pg_catalog.bytea REFERENCES rowseal.master_key (key_id),
    compromised pg_catalog.bool NOT NULL DEFAULT false,
    reason      pg_catalog.text,
    progress    pg_catalog.jsonb NOT NULL DEFAULT '{}',
    started_at  pg_catalog.timestamptz NOT NULL DEFAULT now(),
    updated_at  pg_catalog.timestamptz NOT NULL DEFAULT now(),
    finished_at pg_catalog.timestamptz,
    CHECK (NOT compromised OR reason IS NOT NULL)
);
CREATE UNIQUE INDEX rotation_running ON rowseal.rotation (tenant) WHERE finished_at IS NULL;

CREATE TABLE rowseal.job (
    id          pg_catalog.uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind        pg_catalog.text NOT NULL CHECK (kind IN ('seal', 'unseal')),
    target      pg_catalog.text NOT NULL,
    state       pg_catalog.text NOT NULL,
    progress    pg_catalog.jsonb NOT NULL DEFAULT '{}',
    started_at  pg_catalog.timestamptz NOT NULL DEFAULT now(),
    updated_at  pg_catalog.timestamptz NOT NULL DEFAULT now(),
    finished_at pg_catalog.timestamptz
);
CREATE UNIQUE INDEX job_running ON rowseal.job (target) WHERE finished_at IS NULL;

-- Live proxies and the epoch each has taken up.
CREATE TABLE rowseal.proxy (
    id         pg_catalog.uuid PRIMARY KEY,
    epoch      pg_catalog.int8 NOT NULL,
    started_at pg_catalog.timestamptz NOT NULL DEFAULT now(),
    heartbeat  pg_catalog.timestamptz NOT NULL DEFAULT now()
);

-- Counts changes of tenants and keys; every change also notifies channel rowseal.
CREATE TABLE rowseal.epoch (
    only_row pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (only_row),
    value    pg_catalog.int8 NOT NULL
);
INSERT INTO rowseal.epoch (value) VALUES (1);

CREATE FUNCTION rowseal.bump_epoch() RETURNS pg_catalog.trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog
AS $body$
BEGIN
    UPDATE rowseal.epoch SET value = value + 1;
    PERFORM pg_notify('rowseal', (SELECT value::text FROM rowseal.epoch));
    RETURN NULL;
END
$body$;

CREATE TRIGGER bump_epoch AFTER INSERT OR UPDATE OR DELETE ON rowseal.tenant
    FOR EACH STATEMENT EXECUTE FUNCTION rowseal.bump_epoch();
CREATE TRIGGER bump_epoch AFTER INSERT OR UPDATE OR DELETE ON rowseal.master_key
    FOR EACH STATEMENT EXECUTE FUNCTION rowseal.bump_epoch();
CREATE TRIGGER bump_epoch AFTER INSERT OR UPDATE OR DELETE ON rowseal.branch_key
    FOR EACH STATEMENT EXECUTE FUNCTION rowseal.bump_epoch();

-- Grants: what every role needs to use sealed columns, and nothing of the registry ---------------------------------

REVOKE ALL ON ALL TABLES IN SCHEMA rowseal FROM PUBLIC;
GRANT USAGE ON SCHEMA rowseal TO PUBLIC;
GRANT EXECUTE ON FUNCTION rowseal.is_cell(pg_catalog.bytea), rowseal.eq(pg_catalog.bytea),
    rowseal.with_tenant(pg_catalog.bytea, pg_catalog.text),
    rowseal.refuse(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text) TO PUBLIC;
GRANT USAGE ON TYPE rowseal.text, rowseal.varchar, rowseal.int4, rowseal.int8, rowseal.bool, rowseal.date,
    rowseal.timestamptz, rowseal.numeric, rowseal.uuid, rowseal.jsonb, rowseal.bytea TO PUBLIC;
REVOKE ALL ON FUNCTION rowseal.bump_epoch() FROM PUBLIC;
